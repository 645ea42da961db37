"""python -m jaxcat.cache list | clear NAME… | clear --all

Shows what jaxcat keeps under $JAXCAT_CACHE (default: the platform's cache directory) and frees space there.
`clear --all` removes everything that jaxcat can make again; to remove downloaded weights, name them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from jaxcat.bottlenecks.engines import converted
from jaxcat.errors import CacheError, ConfigError, one_line
from jaxcat.system import cli
from jaxcat.system.console import Console
from jaxcat.system.files import cache_dir
from jaxcat.wording import counted

OTHERS = {  # folder → what it holds
    "pixels": "digests of decoded images",  # data/pixel_groups.py
    "probed": "which HDF5 files were read to their end",  # weights/formats/hdf5_file.py
    "runtimes": "ONNX Runtime Web, for exported pages",  # export/web/runtime.py
}


class Entry(NamedTuple):
    """One entry of the cache; it can be removed without the others."""

    name: str
    paths: Sequence[Path]
    about: str
    remade: bool  # whether jaxcat makes it again when a run needs it

    @property
    def bytes(self) -> int:
        return sum(map(size, self.paths))


def entries(root: Path) -> Iterator[Entry]:
    """All entries: bottlenecks, converted networks, compiled programs, what else is kept of files, then weights."""
    groups: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for folder in sorted((root / "bottlenecks").glob("*")):
        if folder.is_dir():
            key = _key(folder)
            groups.setdefault(_group(key) or folder.name, []).append((folder, key))
    for name, members in sorted(groups.items()):
        yield Entry(name, [folder for folder, _ in members], _about(members), True)
    for folder, about in converted.folders(root):
        yield Entry(folder.name, [folder], about, True)
    for folder in sorted(root.glob("xla*")):
        if folder.is_dir():
            flags = "" if folder.name == "xla" else ", for other XLA_FLAGS"
            yield Entry(folder.name, [folder], f"compiled programs{flags}", True)
    for name, about in OTHERS.items():
        if (root / name).is_dir():
            yield Entry(name, [root / name], about, True)
    for path in sorted(root.glob("*")):
        if path.is_file() and path.suffix != ".lock":
            yield Entry(path.name, [path], "weights", False)


def _key(folder: Path) -> dict[str, Any]:
    """The key of a folder of bottlenecks; empty if it cannot be read."""
    try:
        key = json.loads((folder / "key.json").read_text())
        return key if isinstance(key, dict) else {}
    except (OSError, ValueError):
        return {}


def _group(key: Mapping[str, Any]) -> str:
    """The name for pooled features that passes of the same kind have computed: all blocks and statistics together.

    Empty if the key is not one of pooled features. Those of runs that share only the first blocks are in one group.
    """
    try:
        if not (key["pool"] and isinstance(key["numbers"], list)):
            return ""
        shared = {**key, "stages": 0, "pool": key["pool"][1], "numbers": key["numbers"][0]}
        shared |= {"plan": 0} if "plan" in key else {}  # of LiteRT: that of the last block
        text = json.dumps(shared, sort_keys=True)
        return f"pooled-{key['image_size']}px-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    except (KeyError, TypeError, IndexError):
        return ""


def _about(members: Sequence[tuple[Path, dict[str, Any]]]) -> str:
    """What a folder of bottlenecks has, or several of one group."""
    try:
        rows = max(_rows(folder) for folder, _ in members)
        folder, key = members[-1]
        views = "not augmented" if key["seed"] is None else _views(key)
        if _group(key):
            blocks = {key["stages"][-1]: len(key["stages"]) for _, key in members}
            names = sorted(blocks, key=blocks.__getitem__)
            statistics = sorted({key["pool"][0] for _, key in members})
            what = f"of {' '.join(names)}, {' '.join(statistics)}"
        else:
            what = f"up to {key['stages'][-1]}"
        return f"{counted(rows, 'row')} {what}, {key['dtype']}, {views}"
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return "bottlenecks without a readable key"


def _views(key: Mapping[str, Any]) -> str:
    """How the views of the rows of a folder were made."""
    erased = f", erase {key['erase']:g}" if "erase" in key else ""
    where = f", on the {key['augment_on']}" if "augment_on" in key else ""
    return f"augment {key['augment']}{erased}, seed {key['seed']}{where}"


def _rows(folder: Path) -> int:
    return sum(len(json.loads(path.read_text())["rows"]) for path in folder.glob("*.json") if path.stem != "key")


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    total = 0
    for file in [path, *path.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # renamed or removed meanwhile by a run
            if not file.is_dir():
                total += file.stat().st_size
    return total


def show(root: Path) -> None:
    """Prints every entry with its size."""
    table = Table("name", "MB", "what", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for entry in entries(root):
        table.add_row(Text(entry.name, overflow="fold"), f"{entry.bytes / 1e6:.1f}", Text(entry.about))
    console = Console(tables=True)
    console.print(f"{root}: {size(root) / 1e6:.1f} MB", soft_wrap=True)
    if table.row_count:
        console.print(table)


def clear(root: Path, names: Sequence[str], *, everything: bool) -> None:
    """Removes the named entries; with `everything`, all that jaxcat can make again.

    Raises:
        ConfigError: a name is not in the cache.
        CacheError: an entry cannot be removed.
    """
    there = {entry.name: entry for entry in entries(root)}
    if unknown := [name for name in names if name not in there]:
        raise ConfigError(f"{unknown[0]}: not in {root}, which has {', '.join(there) or 'nothing'}")
    for entry in there.values():
        if entry.name in names or (everything and entry.remade):
            freed = entry.bytes
            for path in entry.paths:
                _remove(path)
            print(f"removed {entry.name}: {freed / 1e6:.1f} MB")


def _remove(path: Path) -> None:
    try:
        # JSON files first: rows without their JSON file are ignored, a JSON file without its rows looks damaged
        for marker in path.glob("*.json") if path.is_dir() else ():
            marker.unlink()
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise CacheError(f"{path}: cannot be removed: {one_line(error)}") from error


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.cache", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show what is kept, and its size")
    removal = commands.add_parser("clear", help="remove the named entries, or with --all everything but weights")
    removal.add_argument("names", nargs="*", metavar="NAME", help="an entry, as `list` prints it")
    removal.add_argument("--all", action="store_true", help="everything but weights")
    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        show(cache_dir())
    elif not arguments.names and not arguments.all:
        parser.error("clear: name the entries to remove, or give --all")
    else:
        clear(cache_dir(), arguments.names, everything=arguments.all)
    return 0


if __name__ == "__main__":
    cli.run(main)
