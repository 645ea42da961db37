"""Indexing rules 1, unchanged: runs older than rules 2 keep the records that these rules give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from jaxcat.errors import DataError

SPLIT_OF = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
_LEFT_BY_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def passed_over(name: str) -> bool:
    """Whether an entry is hidden or left behind by a system."""
    return name[0] == "." or name.lower() in _LEFT_BY_SYSTEMS


def split_roots(root: Path, folders: Callable[[Path], Iterable[Path]]) -> dict[str, Path]:
    """The folder of each split; root itself is train's if it holds the classes directly."""
    found: dict[str, Path] = {}
    directories = list(folders(root))
    for path in directories:
        name = SPLIT_OF.get(path.name.lower())
        if name in found:
            raise DataError(f"{found[name]} and {path} are both the {name} split; keep one")
        if name:
            found[name] = path
    if "train" in found:
        # A class may be called "train" (beside "bus" and "car"); it then holds images and no class folders.
        if any(folders(found["train"])) or len(found) == len(directories):
            return {name: found[name] for name in ("train", "validation", "test") if name in found}
    elif any(any(folders(split_root)) for split_root in found.values()):
        there = ", ".join(path.name for path in found.values())
        raise DataError(f"{root} has {there} and no train folder; name the folder of training images {root / 'train'}")
    return {"train": root}
