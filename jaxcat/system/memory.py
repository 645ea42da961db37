"""How much memory this process may still take: of the machine, of its container, and of its own limit."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path


def available(root: Path = Path("/")) -> float:
    """Bytes that can still be taken without swapping or being killed; infinite if the system does not say.

    Args:
        root: the root of the file system, where /proc and /sys are.
    """
    return max(0.0, min([math.inf, *_of_machine(root), *_of_container(root), *_of_process(root)]))


def _of_machine(root: Path) -> Iterator[float]:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_container(root: Path) -> Iterator[float]:
    """How many bytes are left in each control group of this process, of version 1 and 2."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        names = ("memory.max", "memory.current") if not controllers else (_V1_LIMIT, "memory.usage_in_bytes")
        folder = mount / path.strip("/")
        for group in (folder, *folder.parents):  # a container may see the group of the whole system above its own
            if not group.is_relative_to(mount):
                break
            limit, used = (_number(group / name) for name in names)
            if limit is not None and used is not None:
                yield limit - used + _reclaimable(group)


_V1_LIMIT = "memory.limit_in_bytes"


def _reclaimable(group: Path) -> int:
    """Bytes of cached files, which count as used but would be given up for others."""
    for line in _text(group / "memory.stat").splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _of_process(root: Path) -> Iterator[float]:
    with contextlib.suppress(ImportError, ValueError, IndexError):
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - int(_text(root / "proc/self/statm").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # "max": no limit


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
