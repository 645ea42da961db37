"""Indexing rules 2 and later: folders that are splits by their names, and which of their folders holds the classes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from jaxcat.data.archives import archives
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.indexing.rules_1 import SPLIT_OF as ALSO_CLASS_NAMES
from jaxcat.data.indexing.split_names import UNLABELLED, are_numbered, is_part, split_name
from jaxcat.data.indexing.walking import folders, holds_images
from jaxcat.data.records import SPLITS, composed
from jaxcat.errors import DataError
from jaxcat.escaping import for_shell
from jaxcat.wording import printable

_SEARCHED = 200  # folders that are listed to suggest another one


def class_root(folder: Path, known: Collection[str] = (), *, rules: int) -> Path:
    """The folder that holds the class folders of a split: `folder`, or one further down if it holds no other.

    A folder whose name is in `known` is a class.
    """
    passed = set()
    while (real := archives.realpath(folder)) not in passed:
        passed.add(real)
        here = folders(folder, rules=rules)
        if len(here) != 1 or composed(here[0].name) in known:
            break
        if (inner := only_inner(folder, here, rules=rules)) is None:
            break
        folder = inner
    return folder


def only_inner(base: Path, here: Sequence[Path], *, rules: int) -> Path | None:
    """The one of the folders `here` that holds everything: another level of an unpacked archive."""
    if len(here) == 1:
        inner = folders(here[0], rules=rules)
        return here[0] if inner and not holds_images(base, below=False, rules=rules) else None
    with_splits = [path for path in here if is_split(path, rules=rules)]
    with_images = [path for path in here if holds_images(path, rules=rules)]
    if len(with_splits) == 1 and not set(with_images) - set(with_splits):
        return with_splits[0]
    with_folders = [path for path in here if folders(path, rules=rules)]
    roots = {path: class_root(path, rules=rules) for path in with_folders}
    inside = {path: {each.name for each in folders(root, rules=rules)} for path, root in roots.items()}
    if len(with_images) == 1 and len(inside.get(with_images[0], ())) > 1:  # such as "images" beside "meta"
        beside = [path for path in here if path != with_images[0]]
        if beside and all(is_part(path.name) for path in beside) and not holds_images(base, below=False, rules=rules):
            return with_images[0]
    if len(with_images) == 1 and len(inside) == len(here) > 1:  # such as "images" and "annotations", by class
        others = [names for path, names in inside.items() if path != with_images[0]]
        if all(len(names & inside[with_images[0]]) > 1 for names in others):
            return with_images[0]
    return None


def is_split(folder: Path, *, rules: int = INDEX_RULES) -> bool:
    """Whether a folder holds splits that hold class folders."""
    try:
        train = recognized(folder, folders(folder, rules=rules), rules=rules).get("train")
        return train is not None and bool(folders(train, rules=rules)) and holds_images(train, rules=rules)
    except DataError:
        return False


def recognized(base: Path, here: Sequence[Path], *, rules: int) -> dict[str, Path]:
    """The folders `here` that are splits by their names; none if they may also be classes.

    Raises:
        DataError: they look like splits, but not of one data set, or train is missing.
    """
    groups: dict[tuple[str, ...], dict[str, list[Path]]] = {}
    for path in here:
        if name := split_name(path.name):
            groups.setdefault(name.rest, {}).setdefault(name.split, []).append(path)
    whole = {rest: group for rest, group in groups.items() if "train" in group and (not rest or _labelled(group) > 1)}
    if not whole:
        _check_train(base, groups.get((), {}), here, rules=rules)
        return {}
    if len(whole) > 1 and () not in whole:
        raise DataError(
            f"{shown(base)}: {names(here)} name a split and a class, or splits of several data sets, in one name: "
            f"arrange them as {shown(base / 'train' / ' '.join(min(whole)))}, or name the splits of one data set: "
            f"{_flags(whole[min(whole)])}"
        )
    return _of_group(base, whole.get((), next(iter(whole.values()))), here, rules=rules)


def _of_group(base: Path, group: dict[str, list[Path]], here: Sequence[Path], *, rules: int) -> dict[str, Path]:
    """The splits in one group of folders with names of splits; none if they are classes, such as train, bus and car."""
    rest = [path for path in here if not any(path in paths for paths in group.values())]
    inside = {path.name for path in folders(group["train"][0], rules=rules)}
    if not inside:
        one_kind = len(group) == 1 and len(group["train"]) > 1  # "train1" and "train2"
        surely = _labelled(group) > 1 and any(
            path.name.lower() not in ALSO_CLASS_NAMES for paths in group.values() for path in paths
        )
        if rest and not surely and _labelled(group) > 1:
            flat = [path for split, paths in group.items() if split != UNLABELLED for path in paths]
            raise DataError(
                f"{shown(base)} holds {names(flat)}, which may be splits or classes and hold no class folders, and "
                f"{names(rest)}: if they are splits, the class of an image must be in a folder SPLIT/CLASS, in its "
                f"name (--config.data.label_pattern) or in a table (--config.data.source=table); if all are classes, "
                f"{flag('train', base)}"
            )
        if one_kind or (rest and not surely):
            return {}
    _take_evaluation_for_test(group)
    for split, paths in group.items():
        if len(paths) > 1 and split != UNLABELLED:
            raise DataError(
                f"{shown(paths[0])} and {shown(paths[1])} are both the {split} split by their names; keep one, or "
                f"name the splits: {_flags(group)}{or_all(paths) if inside else ''}"
            )
    found = {split: paths[0] for split, paths in group.items()}
    others = [path for path in rest if holds_images(path, rules=rules)] if inside else []
    roots = [class_root(path, rules=rules) for split, path in found.items() if split != "train"]
    alike = any(inside & {path.name for path in folders(root, rules=rules)} for root in roots)
    if others and not alike:
        raise DataError(
            f"{shown(base)} holds {names(found.values())}, which may be splits or classes, and {names(others)} with "
            f"images: if they are splits, say {_flags(group)}; if all are classes, {flag('train', base)}"
        )
    return found


def _check_train(base: Path, group: dict[str, list[Path]], here: Sequence[Path], *, rules: int) -> None:
    """Raises DataError if there are folders of validation or test with class folders in them, and none of train."""
    there = [path for split, paths in group.items() for path in paths if split != UNLABELLED]
    apart = len(group) > 1 and len(there) == len(here)  # nothing but validation and test, which cannot be classes
    if there and (apart or any(folders(path, rules=rules) for path in there)):
        others = [path for path in here if path not in there and folders(path)]
        train = flag("train", others[0]) if len(others) == 1 else "--config.data.train_dir=FOLDER"
        also = "".join(f" {flag(split, group[split][0])}" for split in SPLITS[1:] if split in group)
        raise DataError(
            f"{shown(base)} has {names(there)} and no train folder; call the folder of training images "
            f"{shown(base / 'train')}, or say which it is: {train}{also}{suggestion(base)}"
        )


def _take_evaluation_for_test(group: dict[str, list[Path]]) -> None:
    """If there are validation and evaluation and no test, evaluation is the test split (as in Food-11)."""
    later = [path for path in group.get("validation", ()) if path.name.lower().startswith("eval")]
    if "test" not in group and "validation" in group and len(later) == 1 < len(group["validation"]):
        group["test"] = later
        group["validation"] = [path for path in group["validation"] if path not in later]


def _labelled(group: dict[str, list[Path]]) -> int:
    return len(group.keys() - {UNLABELLED})


def or_all(paths: Sequence[Path]) -> str:
    """The end of a message about folders that may be one split: how all of them are taken, if they are numbered."""
    return in_all(paths) if are_numbered([path.name for path in paths]) else ""


def in_all(paths: Sequence[Path]) -> str:
    """The end of a message about folders that hold class folders: how to take these in all of them.

    "" if the class folders hold other folders: the pattern would take those for classes.
    """
    inside = [folders(path) for path in paths]
    if not all(here and innermost(here) for here in inside):
        return ""
    return (
        "; to take all, with the folder that an image lies in as its class: "
        "--config.data.label_pattern='([^/]+)/[^/]+$'"
    )


def innermost(paths: Sequence[Path]) -> bool:
    """Whether each of the folders holds images directly, and no folder with images."""
    return all(holds_images(path, below=False) and not any(map(holds_images, folders(path))) for path in paths)


def _flags(group: dict[str, list[Path]]) -> str:
    """The settings that name the first folder of each split."""
    return " ".join(flag(split, group[split][0]) for split in SPLITS if split in group)


def flag(split: str, folder: Path) -> str:
    """The setting that makes a folder this split."""
    return f"--config.data.{split}_dir={for_shell(shown(folder))}"


def suggestion(base: Path) -> str:
    """The end of a message: another folder that is arranged as splits, if there is one further down."""
    found = suggested(base)
    return f"; did you mean --config.data.dir={for_shell(shown(found))}?" if found else ""


def suggested(base: Path) -> Path | None:
    """The nearest folder below `base` that holds splits; only the first folders are searched."""
    return next((path for path in itertools.islice(_inside(base), _SEARCHED) if is_split(path)), None)


def _inside(base: Path) -> Iterator[Path]:
    """All folders below `base`, level by level, at most three levels."""
    level = [base]
    for _ in range(3):
        following: list[Path] = []
        for path in level:
            try:
                following += folders(path)
            except DataError:
                continue
        yield from following
        level = following


def shown(path: Path) -> str:
    """The path as messages show it."""
    return printable(str(path))


def names(paths: Collection[Path]) -> str:
    """The names of the first few folders, as messages show them."""
    every = [printable(path.name) for path in paths]
    return ", ".join(every[:6]) + (" …" if len(every) > 6 else "")
