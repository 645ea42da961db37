"""The class folders of a split: their images, and what lies outside of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxcat.data.archives import archives
from jaxcat.data.indexing.skipped import Reason, Skipped
from jaxcat.data.indexing.walking import entries, folders, image_files, skip
from jaxcat.data.records import composed


@dataclass(frozen=True)
class ClassFolders:
    """The class folders of one split.

    Attributes:
        root: the folder that holds them.
        of_class: class name → its folders: one, or several if their names differ only in Unicode's form.
    """

    root: Path
    of_class: Mapping[str, Sequence[Path]]


def class_folders(root: Path, *, rules: int, apart: Sequence[Path] = ()) -> ClassFolders:
    """The folders in `root` by class, without those in `apart` and those that hold one of them."""
    of_class: dict[str, list[Path]] = {}
    for path in folders(root, rules=rules):
        if rules == 1:
            of_class[path.name] = [path]
        elif not any(path == other or path in other.parents for other in apart if other != root):
            of_class.setdefault(composed(path.name), []).append(path)
    return ClassFolders(root, of_class)


def images_by_class(
    there: ClassFolders, classes: Sequence[str], skipped: Skipped, *, rules: int
) -> dict[str, list[Path]]:
    """The images of each class, in sorted order; an empty list for a class without a folder."""
    return {
        name: [path for each in there.of_class.get(name, ()) for path in image_files(each, skipped, rules=rules)]
        for name in classes
    }


def skip_outside(
    root: Path, there: Mapping[str, ClassFolders], available: Sequence[str], skipped: Skipped, *, rules: int
) -> None:
    """Counts the files below `root` and the split folders that are outside the folders of `available` classes."""
    taken, levels = set(), {root}
    for each in there.values():
        taken |= {path for name in available for path in each.of_class.get(name, ())}
        levels |= {each.root, *(path for path in each.root.parents if root in path.parents)}
    for level in sorted(levels):
        seen, unseen = entries(level, rules=rules)
        skip(unseen, skipped)
        for path in seen:
            if path in taken or path in levels:
                continue
            if archives.isdir(path):
                of_split = any(level == each.root for each in there.values())
                skipped.add_folder(path, Reason.OTHER_CLASS if of_split else Reason.BESIDE)
            else:
                skipped.add_file(path, Reason.UNLABELLED)
