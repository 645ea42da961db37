"""Images whose class is in the file name, as in train/cat.0.jpg: `data.label_pattern` finds it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jaxcat.data.archives.archives import isdir
from jaxcat.data.images.decoding import SUFFIXES
from jaxcat.data.indexing.layout import split_roots
from jaxcat.data.indexing.listed import Listed, Problems, clean, data_of, refuse_unknown, split_of
from jaxcat.data.indexing.patterns import Pattern, suggested
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.indexing.skipped import Reason, Skipped
from jaxcat.data.indexing.split_folders import class_root
from jaxcat.data.indexing.split_names import are_numbered, split_name
from jaxcat.data.indexing.walking import entries, folders, holds_images, image_files
from jaxcat.data.records import SPLITS, Data, Split
from jaxcat.errors import DataError
from jaxcat.escaping import for_shell
from jaxcat.wording import is_printable, printable

logger = logging.getLogger(__name__)

_SEEN = 5000  # names that a pattern is suggested by


def open_by_names(config: Any, root: Path, *, rules: int) -> Data:
    """Indexes the images below `root`, by folders of splits if there are some; `data.label_pattern` gives the classes.

    Raises:
        ConfigError: the pattern takes too long.
        DataError: it finds no class in the name of an image of train or validation, or fewer than two in all.
    """
    pattern, skipped = Pattern("label_pattern", config.data.label_pattern), Skipped()
    roots = _roots(root, config.data, skipped, rules=rules)
    _tell_of_several(roots)
    named = bool(config.data.train_dir)
    records, problems = [], Problems(str(pattern))
    for split, folder in roots:
        others = [each for _, each in roots if folder in each.parents]
        for record in _listed(folder, root, split, pattern, skipped, rules=rules):
            if any(each in record.path.parents for each in others):
                continue  # it is of that split
            if split == "train" and not named and (deep := _split_on_the_way(record.path, folder)):
                problems.add(
                    "below a folder that may be a split; say which is which with --config.data.train_dir=FOLDER and "
                    "the like",
                    record.place,
                    deep,
                )
            if not record.label and split != "test":
                problems.add("no class in the name", record.place)
            elif not is_printable(record.label):
                problems.add("a class with characters that cannot be printed", record.place, record.label)
            records.append(record)
    problems.refuse("\nmend the pattern, rename these files or move them elsewhere")
    return data_of(records, config, where=str(pattern), skipped=skipped)


def open_labelled_names(root: Path, classes: tuple[str, ...], label_pattern: str, *, rules: int = INDEX_RULES) -> Split:
    """Every image below `root` as one split, for evaluation; a label is the place of its class in `classes`.

    Raises:
        DataError: a file's name has no class, or none that is in `classes`; or there is no image.
    """
    pattern, skipped = Pattern("label_pattern", label_pattern), Skipped()
    records, where = list(_listed(root, root, "test", pattern, skipped, rules=rules)), f"--data {root}"
    skipped.warn()
    refuse_unknown(
        records, classes, "no class that this classifier knows", where=where, advice=f"; classes are found by {pattern}"
    )
    if not records:
        raise DataError(f"--data {root}: no images ({', '.join(sorted(SUFFIXES))})")
    return split_of(printable(root.name), records, classes)


def _listed(
    folder: Path, root: Path, split: str, pattern: Pattern, skipped: Skipped, *, rules: int
) -> Iterator[Listed]:
    """The images below a folder; the label is "" if the pattern finds none."""
    for path in image_files(folder, skipped, rules=rules):
        name = (
            path.relative_to(root).as_posix()
            if path.is_relative_to(root)
            else f"{split}/{path.relative_to(folder).as_posix()}"
        )
        yield Listed(printable(name), name, path, clean(pattern.find(name if pattern.of_path else path.name)), split)


def _roots(root: Path, data: Any, skipped: Skipped, *, rules: int) -> list[tuple[str, Path]]:
    """The folders of each split, in the order of `SPLITS`: as settings or names say; else all of `root` is train."""
    if data.train_dir or data.validation_dir or data.test_dir:
        return list(split_roots(root, data, rules=rules).items())
    base = class_root(root, rules=rules)
    found: dict[str, list[Path]] = {}
    for path in folders(base, rules=rules):
        name = split_name(path.name)
        if name is None or name.split not in SPLITS:
            continue
        found.setdefault(name.split, []).append(path)
    for split, paths in found.items():
        if len(paths) > 1 and not are_numbered([path.name for path in paths]):
            raise DataError(
                f"{printable(str(paths[0]))} and {printable(str(paths[1]))} are both the {split} split by their names; "
                f"if they are, put them into one folder called {split}; else name the folder of each split: "
                "--config.data.train_dir=FOLDER and the like"
            )
    if "train" not in found:
        found["train"] = [base]  # what lies beside validation and test is train
    else:
        taken = [path for paths in found.values() for path in paths]
        for path in entries(base, rules=rules)[0]:
            if path not in taken:
                skipped.add_folder(path, Reason.BESIDE) if isdir(path) else skipped.add_file(path, Reason.UNLABELLED)
    return [(split, _innermost(path, split, rules=rules)) for split in SPLITS for path in found.get(split, ())]


def _tell_of_several(roots: Sequence[tuple[str, Path]]) -> None:
    """Says which folders are one split, if there are several."""
    for split in SPLITS:
        if len(paths := [printable(str(path)) for each, path in roots if each == split]) > 1:
            logger.warning("the %s split is in %d folders: %s", split, len(paths), ", ".join(paths))


def _innermost(folder: Path, split: str, *, rules: int) -> Path:
    """The folder of a split, or the one in it, as in train/train, if there is nothing else in it."""
    while not holds_images(folder, below=False, rules=rules) and len(here := folders(folder, rules=rules)) == 1:
        if (name := split_name(here[0].name)) is None or name.split != split:
            break
        folder = here[0]
    return folder


def _split_on_the_way(path: Path, folder: Path) -> str:
    """The name of a folder between `folder` and the image that is called as a split; "" if there is none."""
    between = path.relative_to(folder).parts[:-1]
    return next((part for part in between if (name := split_name(part)) and name.split in SPLITS), "")


def advice(folder: Path) -> str:
    """The end of an error about a folder without class folders: a pattern, if file names there look as if they had one.

    "" otherwise.
    """
    names = [path.name for path in islice(entries(folder)[0], _SEEN) if path.suffix.lower() in SUFFIXES]
    if not (pattern := suggested(names)):
        return ""
    return (
        f"; if the class is in the file names, as in {printable(names[0])}, add "
        f"--config.data.label_pattern={for_shell(pattern)}"
    )
