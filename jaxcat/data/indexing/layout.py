"""Indexing rules 2 and later: the folders of the splits in `data.dir`, and what may be wrong with their arrangement."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcat.data.archives import archives
from jaxcat.data.indexing.group_folders import are_groups, or_groups
from jaxcat.data.indexing.rules import INDEX_RULES, RULES
from jaxcat.data.indexing.split_folders import (
    class_root,
    flag,
    in_all,
    names,
    only_inner,
    or_all,
    recognized,
    shown,
    suggestion,
)
from jaxcat.data.indexing.split_names import UNLABELLED, are_parts, is_part, says_nothing, split_name
from jaxcat.data.indexing.walking import folders, holds_images, walk
from jaxcat.data.records import SPLITS, composed, named_classes
from jaxcat.errors import ConfigError, DataError
from jaxcat.system.paths import expanded
from jaxcat.wording import printable


def split_roots(root: Path, data: Any, *, rules: int = INDEX_RULES) -> dict[str, Path]:
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
        found = _by_name(root, data.group_pattern, taken=list(named.values()), rules=rules) | named
    train = class_root(found["train"], rules=rules)
    here = folders(train, rules=rules)
    if "train" not in named:
        also = "".join(f" {flag(name, found[name])}" for name in SPLITS[1:] if name in found and name not in named)
        _check_parts(train, here, also)
        if RULES[rules].refuse_mixed:
            _check_mixed(train, here, also, rules=rules)
            # If `train` was found by its name, the contents of its folders have not been looked at yet.
            inside = {path: _with_images(path, rules=rules) for path in here}
            _check_kinds(train, *_in_most(inside, here), also=also)
    known = {composed(path.name) for path in here}
    others = [name for name in SPLITS if name in found and name != "train"]
    roots = {name: class_root(found[name], known, rules=rules) for name in others}
    return {"train": train, **roots}


def class_root_around(place: Path, root: Path, data: Any) -> Path | None:
    """The folder of class folders, in `root`, that is or holds `place`: a new folder there would be taken for a class.

    It holds the class folders, or only a folder that holds them, as archives unpack. None if there is no such folder,
    if `place` is in a hidden folder or beside the classes that `data.classes` names, or if it is not clear which
    folders are splits, which opening the data reports.
    """
    place, chosen = Path(os.path.realpath(place)), {composed(name) for name in named_classes(data.classes)}
    if not os.path.isdir(root) or not place.is_relative_to(os.path.realpath(root)):
        return None
    try:
        roots = split_roots(root, data)
    except (ConfigError, DataError):
        return None
    for path in roots.values():
        if place.is_relative_to(real := os.path.realpath(path)):
            inside = place.relative_to(real).parts
            seen = not any(part.startswith(".") for part in inside)
            if seen and (not chosen or composed(inside[0] if inside else "") in chosen):
                return path
    return None if data.train_dir else _wrapper_around(place, root, roots["train"])


def _wrapper_around(place: Path, root: Path, train: Path) -> Path | None:
    """The folder that holds `place` and one other folder beside it, whose name is not that of a split."""
    for level, inner in itertools.pairwise([*reversed(train.parents), train]):
        if level.is_relative_to(root) and place.is_relative_to(real := os.path.realpath(level)):
            inside = place.relative_to(real).parts
            seen = not any(part.startswith(".") for part in inside)
            beside = {path.name for path in folders(level)} - set(inside[:1])
            if seen and beside == {inner.name} and not split_name(inner.name):
                return level
    return None


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
                f"--config.data.{split}_dir={printable(value)}: there is no folder {shown(path)}; name one in "
                "--config.data.dir, or give an absolute path"
            )
        for other, there in named.items():
            if other != split and archives.realpath(there) == archives.realpath(path):
                raise ConfigError(
                    f"--config.data.{split}_dir={printable(value)}: this folder is the {other} split already"
                )
    return named


def _by_name(root: Path, group_pattern: str, *, taken: Sequence[Path], rules: int) -> dict[str, Path]:
    """The splits that are found by their names, in `root` or in the only folder it holds; else {"train": classes}."""
    base, passed, elsewhere = root, set(), {archives.realpath(path) for path in taken}
    while (real := archives.realpath(base)) not in passed:
        passed.add(real)
        here = [path for path in folders(base, rules=rules) if archives.realpath(path) not in elsewhere]
        if found := recognized(base, here, rules=rules):
            found.pop(UNLABELLED, None)
            return found
        if (inner := only_inner(base, here, rules=rules)) is None:
            break
        base = inner
    _check_classes(base, here, root, group_pattern, rules=rules)
    return {"train": base}


def _with_images(path: Path, *, rules: int) -> list[Path]:
    return [each for each in folders(path, rules=rules) if holds_images(each, rules=rules)]


def _check_parts(train: Path, here: Sequence[Path], also: str) -> None:
    """Raises DataError if `here`, folders that would be classes, are parts of a data set, such as images and masks.

    `also` has the settings of the other splits: beside `data.train_dir`, they are no longer found by their names.
    """
    if len(here) > 1 and are_parts([path.name for path in here]):
        raise DataError(
            f"{shown(train)} holds {names(here)}, which are parts of a data set by their names, not classes: arrange "
            f"the images as CLASS/…{suggestion(train)}; if they are classes, {flag('train', train)}{also}"
        )


def _check_mixed(train: Path, here: Sequence[Path], also: str, *, rules: int) -> None:
    """Raises DataError if one of the folders `here`, which would be classes, holds the classes, and others only images.

    Some archives have a folder of sorted images beside samples, or beside images to test on. If more than one folder
    holds only images, their names must say so too, because one of several classes may be divided.
    """
    if len(here) < 2:
        return
    deeper = [path for path in here if not holds_images(path, below=False, rules=rules)]
    inside = {path: class_root(path, rules=rules) for path in deeper}
    below = {path: _with_images(inner, rules=rules) for path, inner in inside.items()}
    several = [path for path in below if len(below[path]) > 1]
    divided = [path for path in several if not holds_images(inside[path], below=False, rules=rules)]
    flat = [path for path in here if path not in divided and holds_images(path, rules=rules)]
    if len(divided) != 1 or not flat:
        return
    one, inner = divided[0], inside[divided[0]]
    named = says_nothing(one.name) or all(says_nothing(path.name) for path in flat)
    if len(flat) > 1 and not named and (inner == one or inner.name != one.name):
        return
    raise DataError(
        f"{shown(train)}: {printable(one.name)} holds {len(below[one])} folders of images ({names(below[one])}), and "
        f"beside it {names(flat)} {'holds' if len(flat) == 1 else 'hold'} images only. If the folders in "
        f"{printable(one.name)} are the classes, {flag('train', _or_its_copy(inner))}{also}; if those beside each "
        f"other are, {flag('train', train)}{also}"
    )


def _or_its_copy(folder: Path) -> Path:
    """A folder of class folders, or the second copy of it that some archives have inside."""
    here = folders(folder)
    return next((path for path in here if _again_in(path, here, folders(path))), folder)


def _again_in(path: Path, here: Sequence[Path], below: Sequence[Path]) -> list[Path]:
    """The folders `below`, in `path`, that have the names of others of `here`; [] if they are fewer than two."""
    beside = {other.name for other in here if other != path}
    again = [each for each in below if each.name in beside]
    return again if len(again) > 1 else []


def _check_classes(base: Path, here: Sequence[Path], root: Path, group_pattern: str, *, rules: int) -> None:
    """Raises DataError if folders that would be classes look like splits, by their names or by the folders in them.

    Folders that `group_pattern` makes groups, such as the same patients in every class, may be in several.
    """
    deeper = [path for path in here if not holds_images(path, below=False, rules=rules)]
    inside = {path: folders(class_root(path, rules=rules), rules=rules) for path in deeper}
    for path, below in inside.items():
        name = split_name(path.name)
        if name and name.split != UNLABELLED and len(below) > 1:
            raise DataError(
                f"{shown(path)} may be a split or a class, beside {names([each for each in here if each != path])}: "
                f"if it is a split, say {flag(name.split, path)}; if it is a class, {flag('train', base)}"
                f"{or_all(here)}"
            )
        if again := _again_in(path, here, below):
            raise DataError(
                f"{shown(path)} holds {names(again)} again: if it is a second copy, remove it; if the others are, "
                f"{flag('train', path)}; if all are classes, {flag('train', base)}"
            )
        splits = {name.split for each in below if (name := split_name(each.name)) and not name.rest}
        if "train" in splits and splits & {"validation", "test"}:
            raise DataError(
                f"{shown(path)} holds {names(below)}, so a class would have its own splits: arrange the images as "
                f"SPLIT/CLASS{suggestion(base)}; to ignore these splits: {flag('train', base)}"
            )
    _check_flat(base, here)
    common, alike = _in_most(inside, here)
    if len(common) < 2:
        return
    _check_kinds(base, common, alike)
    inner = [each for path in alike for each in inside[path]]
    if are_groups(inner, root, group_pattern, rules=rules):
        return
    alike = sorted(alike, key=lambda path: -sum(1 for found in walk(path, None) if isinstance(found, Path)))
    raise DataError(
        f"{shown(base)}: the folders {names(alike)} all hold the folders {', '.join(common[:5])}"
        f"{' …' if len(common) > 5 else ''}. If they are splits, say which is which, such as "
        f"{flag('train', alike[0])} {flag('validation', alike[1])} (or test_dir); if they are the classes, "
        f"{flag('train', base)}{or_groups(inner, 'the folders in them')}{in_all(alike)}{suggestion(base)}"
    )


def _in_most(inside: Mapping[Path, Sequence[Path]], here: Sequence[Path]) -> tuple[list[str], list[Path]]:
    """The names of folders that most of the folders `here` hold, and those that hold any of them."""
    number = Counter(composed(each.name).lower() for below in inside.values() for each in below)
    common = sorted(name for name, count in number.items() if count > 1 and 2 * count > len(here))
    return common, [
        path for path, below in inside.items() if {composed(each.name).lower() for each in below} & set(common)
    ]


def _check_kinds(base: Path, common: Sequence[str], alike: Sequence[Path], *, also: str = "") -> None:
    """Raises DataError if the folders that all of `alike` hold are images and, for example, their masks."""
    if len(common) > 1 and any(map(is_part, common)):
        raise DataError(
            f"{shown(base)}: the folders {names(alike)} all hold {', '.join(common[:5])}, which are parts of a data "
            "set by their names, so not all of them are images to train on: move the others elsewhere, or list the "
            "images in a table (--config.data.source=table); if all are images of these classes, "
            f"{flag('train', base)}{also}"
        )


def _check_flat(base: Path, here: Sequence[Path]) -> None:
    """Raises DataError if a folder beside at least two classes has a name for images to measure or predict."""
    for path in here:
        name, others = split_name(path.name), [each for each in here if each != path and not split_name(each.name)]
        if name is None or name.rest or name.split == "train" or path.name.lower() == "valid" or len(others) < 2:
            continue
        unlabelled = name.split == UNLABELLED
        measured = "" if unlabelled else f"if it is a split, sort it by class and say {flag(name.split, path)}; "
        raise DataError(
            f"{shown(path)} may hold images to {'predict' if unlabelled else 'measure on'}, or be a class beside "
            f"{names(others)}: {measured}to leave it out, move it elsewhere; if it is a class, {flag('train', base)}"
        )
