"""Indexing rules 2: which folders are the splits, and which folder of a split holds the class folders."""

from __future__ import annotations

import itertools
import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxcat.data.archives import archives
from jaxcat.data.indexing.rules_1 import SPLIT_OF as ALSO_CLASS_NAMES
from jaxcat.data.indexing.split_names import UNLABELLED, are_parts, is_part, split_name
from jaxcat.data.indexing.walking import folders, holds_images
from jaxcat.data.records import SPLITS, composed
from jaxcat.errors import ConfigError, DataError
from jaxcat.system.paths import expanded
from jaxcat.wording import printable

_SEARCHED = 200  # folders that are listed to suggest another one


def split_roots(root: Path, data: Any) -> dict[str, Path]:
    """The folder of each split that holds its class folders, in the order of `SPLITS`; "train" is always there.

    Folders named by `data.train_dir`, `data.validation_dir` and `data.test_dir` are taken. Without `data.train_dir`,
    the others are found by their usual names, also one or more folders further down if `root` holds nothing else. If
    there are none, the folders of `root` are the classes.

    Raises:
        ConfigError: a named folder is missing, or two splits have the same.
        DataError: folders look like splits, but it is not clear which is which.
    """
    named = _named(root, data)
    found = dict(named)
    if "train" not in named:
        found = _by_name(root, taken=list(named.values())) | named
    train = class_root(found["train"])
    if "train" not in named:
        _check_parts(train)
    known = {composed(path.name) for path in folders(train)}
    roots = {name: class_root(found[name], known) for name in SPLITS if name in found and name != "train"}
    return {"train": train, **roots}


def _named(root: Path, data: Any) -> dict[str, Path]:
    """The folders that settings name."""
    named: dict[str, Path] = {}
    for split in SPLITS:
        if not (value := data[f"{split}_dir"]):
            continue
        try:
            named[split] = path = Path(os.path.normpath(root / expanded(value)))
        except ConfigError as error:
            raise ConfigError(f"--config.data.{split}_dir: {error}") from error
        if not archives.isdir(path):
            raise ConfigError(
                f"--config.data.{split}_dir={printable(value)}: there is no folder {_shown(path)}; name one in "
                "--config.data.dir, or give an absolute path"
            )
        for other, there in named.items():
            if other != split and archives.realpath(there) == archives.realpath(path):
                raise ConfigError(
                    f"--config.data.{split}_dir={printable(value)}: this folder is the {other} split already"
                )
    return named


def _by_name(root: Path, *, taken: Sequence[Path]) -> dict[str, Path]:
    """The splits that are found by their names, in `root` or in the only folder it holds; else {"train": classes}."""
    base, passed, elsewhere = root, set(), {archives.realpath(path) for path in taken}
    while (real := archives.realpath(base)) not in passed:
        passed.add(real)
        here = [path for path in folders(base) if archives.realpath(path) not in elsewhere]
        if found := recognized(base, here):
            found.pop(UNLABELLED, None)
            return found
        if (inner := _only(base, here)) is None:
            break
        base = inner
    _check_classes(base, here)
    return {"train": base}


def _only(base: Path, here: Sequence[Path]) -> Path | None:
    """The one of the folders `here` that holds everything: another level of an unpacked archive."""
    if len(here) == 1:
        return here[0] if folders(here[0]) and not holds_images(base, below=False) else None
    with_splits = [path for path in here if is_split(path)]
    if len(with_splits) == 1 and not any(holds_images(path) for path in here if path != with_splits[0]):
        return with_splits[0]
    inside = {path: {each.name for each in folders(class_root(path))} for path in here if folders(path)}
    with_images = [path for path in here if holds_images(path)]
    if len(with_images) == 1 and len(inside.get(with_images[0], ())) > 1:  # such as "images" beside "meta"
        beside = [path for path in here if path != with_images[0]]
        if beside and all(is_part(path.name) for path in beside) and not holds_images(base, below=False):
            return with_images[0]
    if len(with_images) == 1 and len(inside) == len(here) > 1:  # such as "images" and "annotations", by class
        others = [names for path, names in inside.items() if path != with_images[0]]
        if all(len(names & inside[with_images[0]]) > 1 for names in others):
            return with_images[0]
    return None


def class_root(folder: Path, known: Collection[str] = ()) -> Path:
    """The folder that holds the class folders of a split: `folder`, or one further down if it holds no other.

    A folder whose name is in `known` is a class.
    """
    passed = set()
    while (real := archives.realpath(folder)) not in passed:
        passed.add(real)
        here = folders(folder)
        if len(here) != 1 or composed(here[0].name) in known or (inner := _only(folder, here)) is None:
            break
        folder = inner
    return folder


def is_split(folder: Path) -> bool:
    """Whether a folder holds splits that hold class folders."""
    try:
        found = recognized(folder, folders(folder))
        return "train" in found and bool(folders(found["train"])) and holds_images(found["train"])
    except DataError:
        return False


def recognized(base: Path, here: Sequence[Path]) -> dict[str, Path]:
    """The folders `here` that are splits by their names; none if they can as well be classes.

    Raises:
        DataError: they look like splits, but not of one data set, or train is missing.
    """
    groups: dict[tuple[str, ...], dict[str, list[Path]]] = {}
    for path in here:
        if name := split_name(path.name):
            groups.setdefault(name.rest, {}).setdefault(name.split, []).append(path)
    whole = {rest: group for rest, group in groups.items() if "train" in group and (not rest or _labelled(group) > 1)}
    if not whole:
        _check_train(base, groups.get((), {}), here)
        return {}
    if len(whole) > 1 and () not in whole:
        raise DataError(
            f"{_shown(base)}: {_names(here)} name a split and a class, or splits of several data sets, in one name: "
            f"arrange them as {_shown(base / 'train' / ' '.join(min(whole)))}, or name the splits of one data set: "
            f"{_flags(whole[min(whole)])}"
        )
    return _of_group(base, whole.get((), next(iter(whole.values()))), here)


def _of_group(base: Path, group: dict[str, list[Path]], here: Sequence[Path]) -> dict[str, Path]:
    """The splits in one group of folders with names of splits; none if they are classes, such as train, bus and car."""
    rest = [path for path in here if not any(path in paths for paths in group.values())]
    inside = {path.name for path in folders(group["train"][0])}
    if not inside:
        one_kind = len(group) == 1 and len(group["train"]) > 1  # "train1" and "train2"
        surely = _labelled(group) > 1 and any(
            path.name.lower() not in ALSO_CLASS_NAMES for paths in group.values() for path in paths
        )
        if rest and not surely and _labelled(group) > 1:
            flat = [path for split, paths in group.items() if split != UNLABELLED for path in paths]
            raise DataError(
                f"{_shown(base)} holds {_names(flat)}, which may be splits or classes and hold no class folders, and "
                f"{_names(rest)}: if they are splits, the class of an image must be in a folder SPLIT/CLASS, in its "
                f"name (--config.data.label_pattern) or in a table (--config.data.source=table); if all are classes, "
                f"{_flag('train', base)}"
            )
        if one_kind or (rest and not surely):
            return {}
    _take_evaluation_for_test(group)
    for split, paths in group.items():
        if len(paths) > 1 and split != UNLABELLED:
            raise DataError(
                f"{_shown(paths[0])} and {_shown(paths[1])} are both the {split} split by their names; keep one, or "
                f"name the splits: {_flags(group)}"
            )
    found = {split: paths[0] for split, paths in group.items()}
    others = [path for path in rest if holds_images(path)] if inside else []
    alike = any(
        inside & {path.name for path in folders(class_root(path))} for split, path in found.items() if split != "train"
    )
    if others and not alike:
        raise DataError(
            f"{_shown(base)} holds {_names(found.values())}, which may be splits or classes, and {_names(others)} with "
            f"images: if they are splits, say {_flags(group)}; if all are classes, {_flag('train', base)}"
        )
    return found


def _check_train(base: Path, group: dict[str, list[Path]], here: Sequence[Path]) -> None:
    """Raises DataError if there are folders of validation or test with class folders in them, and none of train."""
    there = [path for split, paths in group.items() for path in paths if split != UNLABELLED]
    apart = len(group) > 1 and len(there) == len(here)  # nothing but validation and test, which cannot be classes
    if there and (apart or any(folders(path) for path in there)):
        raise DataError(
            f"{_shown(base)} has {_names(there)} and no train folder; name the folder of training images "
            f"{_shown(base / 'train')}, or say which it is: --config.data.train_dir=FOLDER{_suggestion(base)}"
        )


def _check_parts(train: Path) -> None:
    """Raises DataError if the folders that would be classes are parts of a data set, such as images and masks."""
    here = folders(train)
    if len(here) > 1 and are_parts([path.name for path in here]):
        raise DataError(
            f"{_shown(train)} holds {_names(here)}, which are parts of a data set by their names, not classes: arrange "
            f"the images as CLASS/…{_suggestion(train)}; if they are classes, {_flag('train', train)}"
        )


def _check_classes(base: Path, here: Sequence[Path]) -> None:
    """Raises DataError if folders that would be classes look like splits, by their names or by the folders in them."""
    inside = {path: folders(class_root(path)) for path in here if not holds_images(path, below=False)}
    for path, below in inside.items():
        name = split_name(path.name)
        if name and name.split != UNLABELLED and len(below) > 1:
            raise DataError(
                f"{_shown(path)} may be a split or a class, beside {_names([each for each in here if each != path])}: "
                f"if it is a split, say {_flag(name.split, path)}; if it is a class, {_flag('train', base)}"
            )
        again = [each for each in below if any(each.name == other.name for other in here if other != path)]
        if len(again) > 1:
            raise DataError(
                f"{_shown(path)} holds {_names(again)} again: if it is a second copy, remove it; if the others are, "
                f"{_flag('train', path)}; if all are classes, {_flag('train', base)}"
            )
        splits = {name.split for each in below if (name := split_name(each.name)) and not name.rest}
        if "train" in splits and splits & {"validation", "test"}:
            raise DataError(
                f"{_shown(path)} holds {_names(below)}, so a class would have its own splits: arrange the images as "
                f"SPLIT/CLASS{_suggestion(base)}; to ignore these splits: {_flag('train', base)}"
            )
    _check_flat(base, here)
    number = Counter(composed(each.name).lower() for below in inside.values() for each in below)
    common = sorted(name for name, count in number.items() if count > 1 and 2 * count > len(here))
    if len(common) < 2:
        return
    alike = [path for path, below in inside.items() if {composed(each.name).lower() for each in below} & set(common)]
    raise DataError(
        f"{_shown(base)}: the folders {_names(alike)} all hold the folders {', '.join(common[:5])}"
        f"{' …' if len(common) > 5 else ''}. If they are splits, say which is which, such as "
        f"{_flag('train', alike[0])} {_flag('validation', alike[1])} (or test_dir); if they are the classes, "
        f"{_flag('train', base)}{_suggestion(base)}"
    )


def _check_flat(base: Path, here: Sequence[Path]) -> None:
    """Raises DataError if a folder of images beside at least two classes is called as images to measure or predict."""
    for path in here:
        name, others = split_name(path.name), [each for each in here if each != path and not split_name(each.name)]
        if name is None or name.rest or name.split == "train" or path.name.lower() == "valid" or len(others) < 2:
            continue
        unlabelled = name.split == UNLABELLED
        measured = "" if unlabelled else f"if it is a split, sort it by class and say {_flag(name.split, path)}; "
        raise DataError(
            f"{_shown(path)} may hold images to {'predict' if unlabelled else 'measure on'}, or be a class beside "
            f"{_names(others)}: {measured}to leave it out, move it elsewhere; if it is a class, {_flag('train', base)}"
        )


def _take_evaluation_for_test(group: dict[str, list[Path]]) -> None:
    """Where validation, evaluation and no test lie side by side, evaluation is the test split (as in Food-11)."""
    later = [path for path in group.get("validation", ()) if path.name.lower().startswith("eval")]
    if "test" not in group and "validation" in group and len(later) == 1 < len(group["validation"]):
        group["test"] = later
        group["validation"] = [path for path in group["validation"] if path not in later]


def _labelled(group: dict[str, list[Path]]) -> int:
    return len(group.keys() - {UNLABELLED})


def _flags(group: dict[str, list[Path]]) -> str:
    """The settings that name the first folder of each split."""
    return " ".join(_flag(split, group[split][0]) for split in SPLITS if split in group)


def _flag(split: str, folder: Path) -> str:
    return f"--config.data.{split}_dir={shlex.quote(_shown(folder))}"


def _suggestion(base: Path) -> str:
    """The end of a message: another folder that is arranged as splits, if there is one further down."""
    found = suggested(base)
    return f"; did you mean --config.data.dir={shlex.quote(_shown(found))}?" if found else ""


def suggested(base: Path) -> Path | None:
    """The nearest folder below `base` that holds splits, if it is among the first that are looked at."""
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


def _shown(path: Path) -> str:
    return printable(str(path))


def _names(paths: Collection[Path]) -> str:
    names = [printable(path.name) for path in paths]
    return ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
