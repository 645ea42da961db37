"""A folder of images as data: `DIR/{train,validation,test}/CLASS/…`, or `DIR/CLASS/…` split by the seed."""

from __future__ import annotations

import difflib
import errno
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.decoding import SUFFIXES, printable
from jaxcat.data.division import divide
from jaxcat.data.records import SPLITS, Data, Split, choose_classes
from jaxcat.errors import DataError

logger = logging.getLogger(__name__)

SPLIT_OF = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
_LEFT_BY_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # besides names that begin with a dot
_LOOKED_FOR = ", ".join(sorted(SUFFIXES))


@dataclass
class Ignored:
    """Files that are ignored: their suffix is not an image's, or they lie beside the class folders."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, path: Path) -> None:
        self.count += 1
        if len(self.examples) < 3:
            self.examples.append(printable(str(path)))

    def warn(self) -> None:
        if self.count:
            logger.warning(
                "%d files are no images by their names and are ignored, such as %s",
                self.count,
                ", ".join(self.examples),
            )


def open_folder(config: Any) -> Data:
    """Indexes the images below `data.dir`.

    The class names are the names of train's folders, sorted. Without a validation folder, `data.validation_fraction` of
    train is held out, by a hash of (seed, path) within each class.

    Raises:
        DataError: the folder is missing or holds no image, a class is empty, or the splits disagree on the classes.
        ConfigError: `data.classes` names a class that is not there.
    """
    if not config.data.dir:
        raise DataError("--config.data.source=folder needs --config.data.dir=DIR, with a folder of images per class")
    root = Path(config.data.dir).expanduser()
    if not os.path.isdir(root):
        raise DataError(f"--config.data.dir={config.data.dir}: there is no such folder")
    ignored = Ignored()
    split_roots = _split_roots(root)
    available = sorted(path.name for path in _visible(split_roots["train"]) if os.path.isdir(path))
    if not available:
        raise DataError(
            f"{split_roots['train']}: no class folders; --config.data.dir needs DIR/train/CLASS/… or DIR/CLASS/…,"
            f" with images ({_LOOKED_FOR})"
        )
    for name in available:
        if printable(name) != name:  # class names go into tables, JSON and CSV
            raise DataError(
                f"{split_roots['train']}: class {printable(name)!r} is not printable UTF-8; rename the folder"
            )
    classes = choose_classes(available, config.data.classes)
    splits = {}
    for name, split_root in split_roots.items():
        _check_classes(split_root, classes, available)
        splits[name] = _index(name, root, split_root, classes, ignored)
    ignored.warn()
    return Data(classes, divide(splits, config, classes))


def open_labelled_folder(root: Path, classes: tuple[str, ...]) -> Split:
    """Every image of `root/CLASS/…` as one split, for evaluation. A label is the place of CLASS in `classes`.

    A class may have no folder and so no image.

    Raises:
        DataError: the folder is missing, has a class that is not in `classes`, or has no image.
    """
    if not os.path.isdir(root):
        raise DataError(f"--data {root}: there is no such folder")
    here = [path.name for path in _visible(root) if os.path.isdir(path)]
    if unknown := [name for name in here if name not in classes]:
        raise DataError(
            f"--data {root}: {', '.join(map(repr, unknown))} is no class of this classifier, which knows"
            f" {', '.join(classes)}; set --data to the folder that holds the class folders"
        )
    ignored = Ignored()
    found = [(path, classes.index(name)) for name in here for path in image_files(root / name, ignored)]
    _ignore_unlabelled(root, ignored)
    ignored.warn()
    if not found:
        raise DataError(f"--data {root}: no images in class folders ({_LOOKED_FOR})")
    files = tuple(path.relative_to(root).as_posix() for path, _ in found)
    labels = np.array([label for _, label in found], np.int32)
    return Split(printable(root.name), files, labels, lambda index: found[index][0])


def image_files(directory: Path, ignored: Ignored) -> Iterator[Path]:
    """Yields what `walk` yields, but raises its first DataError."""
    for found in walk(directory, ignored):
        if isinstance(found, DataError):
            raise found
        yield found


def walk(directory: Path, ignored: Ignored) -> Iterator[Path | DataError]:
    """Yields every file below `directory` with an image's suffix, in sorted order, and adds other files to `ignored`.

    It yields a DataError in place of an entry that cannot be listed or examined. Links to directories are followed,
    unless they lead back to a directory that encloses them. Hidden entries are left out.
    """
    above = Path(os.path.realpath(directory)).parents
    yield from _walk(directory, frozenset(map(str, above)), ignored)


def _walk(directory: Path, enclosing: frozenset[str], ignored: Ignored) -> Iterator[Path | DataError]:
    real = os.path.realpath(directory)
    if real in enclosing:
        return
    try:
        here = _visible(directory)
    except DataError as error:
        yield error
        return
    for path in here:
        if os.path.isdir(path):
            yield from _walk(path, enclosing | {real}, ignored)
        elif path.suffix.lower() in SUFFIXES and (os.path.isfile(path) or not os.path.exists(path)):
            yield path  # also a broken link: decoding then reports it
        elif reason := _stat_error(path):
            yield DataError(f"{printable(str(path))}: {reason}")  # it may be a directory of images
        else:
            ignored.add(path)


def _stat_error(path: Path) -> str:
    """Why an entry cannot be examined, such as a lost mount; "" if it can be, or is a broken link."""
    try:
        os.stat(path)
    except OSError as error:
        return "" if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) else str(error.strerror)
    return ""


def _visible(directory: Path) -> list[Path]:
    """The entries of a directory, sorted, without hidden ones and files that operating systems leave behind."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise DataError(f"{printable(str(directory))}: {error.strerror}") from error
    return [directory / name for name in names if name[0] != "." and name.lower() not in _LEFT_BY_SYSTEMS]


def _split_roots(root: Path) -> dict[str, Path]:
    """The folder of each split; root itself is train's if it holds the classes directly."""
    found: dict[str, Path] = {}
    directories = [path for path in _visible(root) if os.path.isdir(path)]
    for path in directories:
        name = SPLIT_OF.get(path.name.lower())
        if name in found:
            raise DataError(f"{found[name]} and {path} are both the {name} split; keep one")
        if name:
            found[name] = path
    if "train" in found:
        # A class may be called "train" (beside "bus" and "car"); it then holds images and no class folders.
        has_classes = any(os.path.isdir(path) for path in _visible(found["train"]))
        if has_classes or len(found) == len(directories):
            return {name: found[name] for name in SPLITS if name in found}
    elif any(os.path.isdir(path) for split_root in found.values() for path in _visible(split_root)):
        there = ", ".join(path.name for path in found.values())
        raise DataError(f"{root} has {there} and no train folder; name the folder of training images {root / 'train'}")
    return {"train": root}


def _check_classes(split_root: Path, classes: tuple[str, ...], available: list[str]) -> None:
    """Raises DataError unless every class has a folder in this split, and every folder is a class of train."""
    here = [path.name for path in _visible(split_root) if os.path.isdir(path)]
    for name in classes:
        if name not in here:
            raise DataError(f"{printable(str(split_root))} has no folder for class {name!r}, which train has")
    for name in here:
        if name not in available:
            near = difflib.get_close_matches(name, available, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{printable(str(split_root / name))}: class {name!r} is not in train{hint}")


def _index(name: str, root: Path, split_root: Path, classes: tuple[str, ...], ignored: Ignored) -> Split:
    files: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        found = [path.relative_to(root).as_posix() for path in image_files(split_root / class_name, ignored)]
        if not found:
            raise DataError(f"{printable(str(split_root / class_name))}: no image in this class folder ({_LOOKED_FOR})")
        files.extend(found)
        labels.extend([label] * len(found))
    _ignore_unlabelled(split_root, ignored)
    return Split(name, tuple(files), np.array(labels, np.int32), lambda index: root / files[index])


def _ignore_unlabelled(root: Path, ignored: Ignored) -> None:
    """Ignores files beside the class folders, even images, because they have no label."""
    for path in _visible(root):
        if os.path.isfile(path):
            ignored.add(path)
