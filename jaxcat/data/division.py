"""The division of data into train and validation: by a fraction, by folds, by groups; and subsets of both.

Everything is chosen by ranking records (or groups) by a hash of (seed, name), so it depends neither on listing order
nor on NumPy's generators. Without groups, a new image displaces at most one other per class.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcat.data.grouping import spread
from jaxcat.data.indexing.patterns import Pattern
from jaxcat.data.records import SPLITS, Split, rank_key
from jaxcat.errors import ConfigError, DataError
from jaxcat.wording import counted, first_few, printable

logger = logging.getLogger(__name__)

EXAMPLES = 3


def divide(splits: Mapping[str, Split], config: Any, classes: Sequence[str]) -> dict[str, Split]:
    """The splits of a run, from those that the data have: "train", and perhaps "validation" and "test".

    With `data.fold`, a fold of train becomes validation. Else, if the data have no validation split, a fraction of
    train does (`hold_out`). Then `data.train_size` and `data.validation_size` limit both.

    Raises:
        ConfigError: the data have a validation split besides `data.fold`, or a subset of an empty split is asked for.
        DataError: a class has too few images for what is asked, or a group is in two of the data's splits.
    """
    if config.data.group_pattern:
        splits = grouped(splits, Pattern("group_pattern", config.data.group_pattern))
    divided = dict(splits)
    if config.data.fold:  # before groups are compared: train and validation may be divided together
        divided |= _take_fold(splits, config, classes)
    check_apart(divided)
    if "validation" not in divided:
        divided |= hold_out(splits["train"], config, classes)
    divided = {name: divided[name] for name in SPLITS if name in divided}
    return limit(divided, config, classes)


def hold_out(train: Split, config: Any, classes: Sequence[str]) -> dict[str, Split]:
    """Divides a split into train and validation by `data.validation_fraction` and `seed`, stratified by class.

    Every class has a record in both, and no group is in both. If the fraction is 0, validation has no records.
    Raises DataError if a class has too few images or groups for that.
    """
    fraction = config.data.validation_fraction
    if not fraction:
        return _parts(train, np.zeros(len(train), bool))
    _check_enough(train, classes, what="hold one out for validation", advice="add images, give a validation split")
    if train.groups is not None:
        side = _spread_groups(train, (1 - fraction, fraction), classes, seed=config.seed)
        _check_present(train, side, classes, wanted="train and validation both have")
        return _parts(train, side == 1)
    held = np.zeros(len(train), bool)
    for members in ranked_by_class(train, len(classes), seed=config.seed):
        held[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    return _parts(train, held)


def _parts(train: Split, held: np.ndarray) -> dict[str, Split]:
    """Train without the held-out records (a mask), and these as validation, both in the order of `train`."""
    return {"train": train.take(np.flatnonzero(~held)), "validation": train.take(np.flatnonzero(held), "validation")}


# folds ----------------------------------------------------------------------------------------------------------------


def parse_fold(text: str) -> tuple[int, int]:
    """The numbers in `data.fold`, such as "2/5". Raises ConfigError if they name no fold."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]) or int(found[2]) < 2:
        raise ConfigError(f"--config.data.fold={text}: must be K/N with 1 ≤ K ≤ N and N of 2 or more, such as 1/5")
    return int(found[1]), int(found[2])


def _take_fold(splits: Mapping[str, Split], config: Any, classes: Sequence[str]) -> dict[str, Split]:
    """Train without the fold that `data.fold` names, and that fold as validation."""
    number, folds = parse_fold(config.data.fold)
    whole = splits["train"]
    if "validation" in splits:
        if config.data.fold_over == "train":
            raise ConfigError(
                f"--config.data.fold={config.data.fold}: the data have a validation split of "
                f"{counted(len(splits['validation']), 'image')}; divide both with "
                "--config.data.fold_over=train+validation, or leave data.fold empty to validate on that split"
            )
        whole = joined(whole, splits["validation"])
    return _parts(whole, folds_of(whole, folds, classes, seed=config.seed) == number - 1)


def folds_of(split: Split, folds: int, classes: Sequence[str], *, seed: int) -> np.ndarray:
    """The fold of every record, int64 (N,) from 0: stratified by class, and no group is in two folds.

    Raises:
        DataError: there are fewer records (or groups) than folds, or a class would be missing in the train part of one.
    """
    units = len(split) if split.groups is None else len(set(split.groups))
    if units < folds:
        kind = "images" if split.groups is None else "groups"
        raise DataError(f"--config.data.fold: train has {units} {kind}, too few for {folds} folds; use fewer folds")
    _check_enough(split, classes, what="divide them into folds", advice="add images")
    if split.groups is not None:
        fold = _spread_groups(split, (1 / folds,) * folds, classes, seed=seed)
        _check_present(split, fold, classes, wanted="train always has")
    else:
        fold, dealt = np.zeros(len(split), np.int64), 0
        for members in ranked_by_class(split, len(classes), seed=seed):
            # Continues after the last fold of the class before.
            fold[members] = (dealt + np.arange(len(members))) % folds
            dealt += len(members)
    present = np.zeros((folds, len(classes)), bool)
    present[fold, split.labels] = True
    if not present.any(axis=1).all():
        raise DataError(f"--config.data.fold: the groups are too unequal for {folds} folds; use fewer folds")
    if lacking := [name for name, there in zip(classes, present.T, strict=True) if not there.all()]:
        logger.warning(
            "in some of the %d folds, validation has no image of %s: %s",
            *(folds, counted(len(lacking), "class", "classes")),
            first_few(lacking),
        )
    return fold


def joined(first: Split, second: Split) -> Split:
    """The records of two splits, under the name of the first. Either both have groups or neither has."""
    count = len(first)
    groups = None if first.groups is None or second.groups is None else first.groups + second.groups
    return Split(
        first.name,
        first.files + second.files,
        np.concatenate([first.labels, second.labels]),
        lambda i: first.stored(i) if i < count else second.stored(i - count),
        decoding=first.decoding,
        groups=groups,
    )


# groups ---------------------------------------------------------------------------------------------------------------


def grouped(splits: Mapping[str, Split], pattern: Pattern) -> dict[str, Split]:
    """The splits with the groups that a pattern finds in the names of the records.

    A record of test in whose name it finds nothing is a group of its own: test is not divided.

    Raises:
        DataError: it finds nothing in some of train or validation, or the table gives groups already.
    """
    result, without = {}, []
    for name, split in splits.items():
        if split.groups is not None:
            raise DataError(f"{pattern}: the table has a column of groups too; add --config.data.group_column=none")
        groups = tuple(map(pattern.find, split.files))
        if name == "test":
            groups = tuple(group or file for group, file in zip(groups, split.files, strict=True))
        without += [file for file, group in zip(split.files, groups, strict=True) if not group]
        result[name] = dataclasses.replace(split, groups=groups)
    if without:
        raise DataError(
            f"{pattern}: it finds no group in {len(without):,} of {sum(map(len, splits.values())):,} paths, such as "
            + ", ".join(map(printable, without[:EXAMPLES]))
        )
    return result


def check_apart(splits: Mapping[str, Split]) -> None:
    """Raises DataError if a group has records in two of the splits that the data have; the message names groups."""
    where: dict[str, list[str]] = defaultdict(list)
    for name, split in splits.items():
        for group in set(split.groups or ()):
            where[group].append(name)
    if spanning := sorted(group for group, names in where.items() if len(names) > 1):
        shown = ", ".join(f"{printable(group)} ({' and '.join(where[group])})" for group in spanning[:EXAMPLES])
        raise DataError(
            f"{len(spanning):,} of {len(where):,} groups are in more than one split of the data, such as {shown}: such "
            "a split measures images much like those of train. Correct the splits, or do without the groups: leave"
            " data.group_pattern empty, or set --config.data.group_column=none. A table's splits are left out by"
            " --config.data.split_column=none"
        )


def _spread_groups(split: Split, shares: Sequence[float], classes: Sequence[str], *, seed: int) -> np.ndarray:
    """The part of every record, int64 (N,): its whole group goes to one of the parts, by their shares."""
    assert split.groups is not None
    names = sorted(set(split.groups), key=lambda name: rank_key(seed, name))
    place = {name: index for index, name in enumerate(names)}
    members = np.array([place[name] for name in split.groups], np.int64)
    return spread(members, split.labels, classes=len(classes), shares=shares)[members]


def _check_present(split: Split, part: np.ndarray, classes: Sequence[str], *, wanted: str) -> None:
    """Raises DataError if a class is in one part only."""
    for label, name in enumerate(classes):
        if len(np.unique(part[split.labels == label])) < 2:
            raise DataError(
                f"the groups of class {name!r} cannot be divided so that {wanted} images of it; add images of other"
                " groups, or leave the class out with --config.data.classes"
            )


def _check_enough(split: Split, classes: Sequence[str], *, what: str, advice: str) -> None:
    """Raises DataError for classes with one image, or one group, which cannot be in both train and validation."""
    counts = np.bincount(split.labels, minlength=len(classes))
    if few := [f"{name!r} ({count})" for name, count in zip(classes, counts, strict=True) if count < 2]:
        raise DataError(
            f"{'class' if len(few) == 1 else 'classes'} with too few images to {what}: {', '.join(few)}; {advice}, or "
            "leave classes of fewer than two images out with --config.data.min_per_class=2"
        )
    groups: list[set[str]] = [set() for _ in classes]
    for label, group in zip(split.labels.tolist(), split.groups or (), strict=split.groups is not None):
        groups[label].add(group)
    alone = [(name, min(its)) for name, its in zip(classes, groups, strict=True) if len(its) == 1]
    if alone:
        shown = ", ".join(f"{name!r} (group {printable(group)})" for name, group in alone)
        raise DataError(
            f"{'class' if len(alone) == 1 else 'classes'} with images of one group only, too few to {what}: {shown}; "
            f"{advice}, or leave {'it' if len(alone) == 1 else 'them'} out with --config.data.classes"
        )


# subsets --------------------------------------------------------------------------------------------------------------


def limit(splits: dict[str, Split], config: Any, classes: Sequence[str]) -> dict[str, Split]:
    """Cuts train and validation to the balanced subsets that `data.train_size` and `data.validation_size` ask for."""
    limited = dict(splits)
    for name, size in (("train", config.data.train_size), ("validation", config.data.validation_size)):
        if size and not len(splits[name]):
            raise ConfigError(
                f"--config.data.{name}_size={size}: there are no {name} images, because"
                f" --config.data.validation_fraction={config.data.validation_fraction:g} holds none out; set it to 0"
            )
        if size:
            limited[name] = _subset(splits[name], size, seed=config.seed, classes=classes)
    return limited


def _subset(split: Split, size: int, *, seed: int, classes: Sequence[str]) -> Split:
    """Takes `size` records, equally many of each class; if that leaves a rest, the first classes get one more each.

    With the same seed, a smaller subset is part of every larger one.
    """
    chosen: list[int] = []
    for label, members in enumerate(ranked_by_class(split, len(classes), seed=seed)):
        quota = size // len(classes) + (label < size % len(classes))
        if not 0 < quota <= len(members):
            fewest = int(np.bincount(split.labels, minlength=len(classes)).min())
            raise DataError(
                f"--config.data.{split.name}_size={size} asks for {quota} of class {classes[label]!r}, which has"
                f" {len(members)} in {split.name}; choose {len(classes)} to {fewest * len(classes)}, or 0 for all"
            )
        chosen.extend(members[:quota])
    return split.take(np.sort(np.array(chosen, np.int64)))


def ranked_by_class(split: Split, class_count: int, *, seed: int) -> list[list[int]]:
    """The record indices of each label, in an order that depends on (seed, file name) alone."""
    keys = [rank_key(seed, name) for name in split.files]
    members: list[list[int]] = [[] for _ in range(class_count)]
    for index in sorted(range(len(split)), key=keys.__getitem__):
        members[split.labels[index]].append(index)
    return members
