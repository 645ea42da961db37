"""Records of any kind of data: splits of named images, class names, and every choice that depends on the seed.

Records to hold out, and those of a subset, are chosen by ranking all records by a hash of (seed, name). The choice
depends neither on listing order nor on NumPy's generators, and a new image displaces at most one other per class.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.decoding import decode, printable, read_file
from jaxcat.errors import ConfigError, DataError, one_line
from jaxcat.wording import counted

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """The records of one split.

    Attributes:
        name: "train", "validation" or "test"; in evaluation the name of a folder.
        files: N names that identify the records: paths relative to `data.dir`, or names such as "digits/0123".
        labels: int32 (N,), indices into the class names.
        stored: i → the image as it is stored: the path of a file, its encoded bytes, or uint8 (H, W, 3).
    """

    name: str
    files: tuple[str, ...]
    labels: np.ndarray
    stored: Callable[[int], Path | bytes | np.ndarray]

    def __len__(self) -> int:
        return len(self.files)

    def fetch(self, index: int) -> np.ndarray:
        """The decoded image, uint8 (H, W, 3) of any size. Raises DataError if it is unreadable."""
        stored = self.stored(index)
        return decode(stored, str(stored) if isinstance(stored, Path) else self.files[index])

    def digest(self, index: int) -> bytes:
        """A 16-byte hash of the image as it is stored. Raises DataError if the file cannot be read."""
        stored = self.stored(index)
        if isinstance(stored, np.ndarray):
            stored = f"{stored.dtype} {stored.shape} ".encode() + stored.tobytes()
        elif isinstance(stored, Path):
            try:
                stored = read_file(stored)
            except (OSError, ValueError) as error:
                raise DataError(f"{printable(str(stored))}: {one_line(error)}") from error
        return hashlib.blake2b(stored, digest_size=16).digest()

    def take(self, indices: np.ndarray, name: str | None = None) -> Split:
        """The split of these records, in this order."""
        chosen = [int(i) for i in indices]
        files, stored = tuple(self.files[i] for i in chosen), self.stored
        return Split(name or self.name, files, self.labels[chosen], lambda i: stored(chosen[i]))


@dataclass(frozen=True)
class Data:
    """Class names, in the order of the labels, and the splits: always "train" and "validation", perhaps "test"."""

    classes: tuple[str, ...]
    splits: dict[str, Split]


def fingerprint(splits: Mapping[str, Split]) -> str:
    """A hash (32 hex digits) of the names and labels of "train" and "validation", in their order; not of pixels."""
    known = hashlib.blake2b(digest_size=16)
    for name in ("train", "validation"):
        known.update("\0".join([name, *splits[name].files, ""]).encode("utf-8", "surrogateescape"))
        known.update(np.asarray(splits[name].labels, np.int32).tobytes())
    return known.hexdigest()


def order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits records: a permutation of range(count), int64, set by its arguments alone.

    `seed` and `epoch` are 0 or more.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def choose_classes(available: Sequence[str], wanted: str) -> tuple[str, ...]:
    """The classes named in `data.classes` (all if it is empty), in the order of `available`, not of the flag.

    Raises:
        ConfigError: a named class is not available.
        DataError: fewer than two classes are left.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in available:
            near = difflib.get_close_matches(name, available, n=3, cutoff=0.5) or list(available[:10])
            raise ConfigError(f"--config.data.classes={wanted}: there is no class {name!r}; nearest: {', '.join(near)}")
    classes = tuple(name for name in available if name in names or not names)
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs two classes or more; found: {', '.join(map(repr, classes)) or 'none'};"
            f" check --config.data.dir and --config.data.classes={wanted!r}"
        )
    return classes


def keep_classes(split: Split, available: Sequence[str], classes: Sequence[str]) -> Split:
    """The records of `classes` only, relabelled from indices into `available` to indices into `classes`."""
    new_label = np.array([classes.index(name) if name in classes else -1 for name in available], np.int32)
    labels = new_label[split.labels]
    kept = np.flatnonzero(labels >= 0)
    reduced = split.take(kept)
    return Split(split.name, reduced.files, labels[kept], reduced.stored)


def hold_out(train: Split, config: Any, classes: Sequence[str]) -> dict[str, Split]:
    """Divides a split into train and validation, class by class, by `data.validation_fraction` and `seed`.

    Every class has a record in both. Raises DataError if a class has too few for that.
    """
    fraction = config.data.validation_fraction
    chosen = []
    for label, members in enumerate(ranked_by_class(train, len(classes), seed=config.seed)):
        if len(members) < 2:
            raise DataError(
                f"class {classes[label]!r} has {counted(len(members), 'image')}: too few to hold one out for "
                "validation; add images, give a validation split, or leave the class out with --config.data.classes"
            )
        chosen.extend(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    held = np.sort(np.array(chosen, np.int64))
    rest = np.setdiff1d(np.arange(len(train)), held)
    return {"train": train.take(rest), "validation": train.take(held, "validation")}


def limit(splits: dict[str, Split], config: Any, classes: Sequence[str]) -> dict[str, Split]:
    """Cuts train and validation to the balanced subsets that `data.train_size` and `data.validation_size` ask for."""
    limited = dict(splits)
    for name, size in (("train", config.data.train_size), ("validation", config.data.validation_size)):
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


def rank_key(seed: int, name: str) -> bytes:
    """The sort key of a name under a seed: a 16-byte hash."""
    return hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
