"""Checks data before any long work: warns of what looks odd, and refuses labels that look shuffled."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data import twins
from jaxcat.data.images.unread import may_be_read
from jaxcat.data.records import Data, Split
from jaxcat.data.store import unreadable_images
from jaxcat.errors import DataError
from jaxcat.wording import counted, printable

logger = logging.getLogger(__name__)

IMBALANCE = 10  # a warning is given if train's largest class is at least so many times its smallest
EXAMPLES = 3
SHUFFLED = 5  # so many images with another class in the other split, or more, are no accident


def warn(data: Data, config: Any) -> None:
    """Warns of skipped files, classes with one image, extreme imbalance, and files that are the same image.

    Raises:
        DataError: the labels of train or validation look shuffled.
    """
    data.skipped.warn()
    counts = np.bincount(data.splits["train"].labels, minlength=len(data.classes))
    single = [name for name, count in zip(data.classes, counts, strict=True) if count == 1]
    if single:
        having = counted(len(single), "class has", "classes have")
        logger.warning("%s one image in train: %s", having, ", ".join(single[:EXAMPLES]))
    if counts.max() >= IMBALANCE * counts.min() and config.optim.class_weight == "none":
        logger.warning(
            "class %r has %s in train and %r has %d: consider --config.optim.class_weight=balanced",
            *(data.classes[counts.argmax()], counted(counts.max(), "image")),
            *(data.classes[counts.argmin()], counts.min()),
        )
    groups = twins.by_bytes(data.splits)
    if not data.held_out:
        check_labels(data, groups)
    warn_of_twins(data.splits, groups, data.classes)


def refuse_no_images(splits: Mapping[str, Split]) -> None:
    """Raises DataError if files of these splits are no images, such as empty ones or web pages.

    It reads the first bytes of each file, and decodes a file only if these belong to no known format. That takes
    seconds, so it comes before weights are downloaded. Files damaged further on, and members of archives, are found
    when images are decoded.
    """

    def problem(record: tuple[Split, int]) -> str:
        split, index = record
        try:
            if not isinstance(stored := split.stored(index), Path):
                return ""
            with open(stored, "rb") as file:
                beginning = file.read(16)
            if not may_be_read(beginning):
                split.fetch(index)
        except OSError:  # decoding says why, or reads it from its archive
            return ""
        except DataError as error:
            return str(error)
        return ""

    every = [(split, index) for split in splits.values() for index in range(len(split))]
    with ThreadPoolExecutor(16) as pool:
        lines = [line for line in pool.map(problem, every) if line]
    if lines:
        raise unreadable_images(lines, total=len(every))


def warn_of_pixels(splits: Mapping[str, Split], pixels: Mapping[str, Sequence[bytes]], classes: Sequence[str]) -> None:
    """Warns of images with the same pixels in files that differ; see `twins.by_pixels`."""
    groups = twins.by_pixels(splits, pixels)
    warn_of_twins(splits, groups, classes, what=" (the same pixels in another file)")


def warn_of_twins(
    splits: Mapping[str, Split], groups: Sequence[twins.Group], classes: Sequence[str], *, what: str = ""
) -> None:
    """Warns of images in two classes, and of images of one class that are in train and in validation or test."""
    if two := twins.with_two_classes(splits, groups):
        logger.warning(
            "%s %s in two classes%s, so at least one label is wrong: %s",
            *(counted(len(two), "image"), "is" if len(two) == 1 else "are", what, _examples(splits, two, classes)),
            extra={"listed_by_check": True},
        )
    alike = [group for group in groups if len(twins.labels_of(splits, group)) == 1]
    for split, seen in (("validation", {"train"}), ("test", {"train", "validation"})):
        both = [group for group in alike if split in (there := {each.split for each in group}) and there & seen]
        if number := sum(each.split == split for group in both for each in group):
            logger.warning(
                "%s of %s %s in %s too%s, so %s looks better than it is: %s",
                *(
                    counted(number, "image"),
                    split,
                    "is" if number == 1 else "are",
                    " or ".join(sorted(seen)),
                    what,
                    split,
                ),
                _examples(splits, both, classes),
            )


def _examples(splits: Mapping[str, Split], groups: Sequence[twins.Group], classes: Sequence[str]) -> str:
    shown = ", ".join(twins.described(splits, group, classes) for group in groups[:EXAMPLES])
    return shown + (", …" if len(groups) > EXAMPLES else "")


def check_labels(data: Data, groups: Sequence[twins.Group]) -> None:
    """Raises DataError if most images that are in both train and validation have different classes there.

    Call it only if validation has a folder of its own: if it was held out of train, an image in two class folders says
    nothing about the other labels. Fewer than `SHUFFLED` such images do not count either.
    """
    both, apart = 0, []
    for group in groups:
        of = {name: [each for each in group if each.split == name] for name in ("train", "validation")}
        if all(of.values()):
            both += 1
            first = of["train"][0]
            if data.splits["train"].labels[first.number] not in twins.labels_of(data.splits, of["validation"]):
                apart.append((first, of["validation"][0]))
    if len(apart) >= SHUFFLED and 2 * len(apart) > both:
        first, twin = min(apart, key=lambda pair: data.splits["train"].files[pair[0].number])
        raise DataError(
            f"{len(apart):,} of {both:,} images that are in both train and validation have another class in each, such "
            f"as {printable(data.splits['train'].files[first.number])} and "
            f"{printable(data.splits['validation'].files[twin.number])}: the labels of one split look shuffled; "
            "correct them"
        )
