"""Folders in class folders: they may be the classes, or, as `data.group_pattern` says, groups such as patients."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxcat.data.indexing.class_folders import ClassFolders
from jaxcat.data.indexing.patterns import Pattern
from jaxcat.data.indexing.split_folders import in_all, innermost
from jaxcat.data.indexing.walking import folders, holds_images, walk
from jaxcat.escaping import for_shell
from jaxcat.wording import printable

logger = logging.getLogger(__name__)


def are_groups(inner: Iterable[Path], root: Path, group_pattern: str, *, rules: int) -> bool:
    """Whether `data.group_pattern` finds the group of images in the names of these folders, so that they are groups.

    One image of each folder decides: what the pattern finds in its path has to overlap the name of the folder. A group
    in the name of a file, or of a folder further up or down, says nothing about these folders.

    Args:
        inner: folders, each in a class folder; those without an image are left out.
        root: the folder to which paths of records are relative.
    """
    if not group_pattern:
        return False
    pattern, asked = Pattern("group_pattern", group_pattern), False
    for folder in inner:
        image = next((path for path in walk(folder, None, rules=rules) if isinstance(path, Path)), None)
        if image is None:
            continue
        if not image.is_relative_to(root):
            return False
        before, name = folder.parent.relative_to(root).as_posix(), image.relative_to(root).as_posix()
        start = len(unicodedata.normalize("NFC", f"{before}/")) if before != "." else 0
        end = start + len(unicodedata.normalize("NFC", folder.name))
        found = pattern.span(name)
        if not (found[0] < end and start < found[1]):
            return False
        asked = True
    return asked


def or_groups(inner: Sequence[Path], they: str) -> str:
    """The end of a message about folders, called `they`, that may be groups: the setting that says so.

    "" if they hold folders: the pattern would take those for the groups.
    """
    if not innermost(inner):
        return ""
    return f"; if {they} are patients, scenes or the like, add --config.data.group_pattern='/([^/]+)/[^/]+$'"


def tell_of_nested(train: ClassFolders, classes: Sequence[str], *, base: Path, group_pattern: str, rules: int) -> None:
    """Warns of classes whose images all lie in several folders, which may be the classes, unless these are groups.

    Args:
        base: the folder to which paths of train's records are relative.
    """
    every = [(name, path) for name in classes for path in train.of_class[name]]
    inside = {path: folders(path) for _, path in every if not holds_images(path, below=False)}
    below = {path: [each for each in paths if holds_images(each)] for path, paths in inside.items()}
    divided = [(name, path) for name, path in every if len(below.get(path, ())) > 1]
    inner = [each for _, path in divided for each in below[path]]
    if not divided or are_groups(inner, base, group_pattern, rules=rules):
        return
    name, path = divided[0]
    whole = len(divided) == len(every)
    ways = or_groups(inner, "these") + in_all([path for _, path in every]) if whole else ""
    logger.warning(
        "the images of class %r lie in %d folders, such as %s; if these are the classes, set "
        "--config.data.train_dir=%s%s",
        *(name, len(below[path]), printable(below[path][0].name), for_shell(printable(str(path))), ways),
    )
