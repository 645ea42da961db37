"""Checks data before any long work: warns of what looks odd, and refuses labels that look shuffled."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.decoding import printable
from jaxcat.data.folder import SPLIT_OF
from jaxcat.data.records import Data, Split
from jaxcat.errors import DataError
from jaxcat.wording import counted

logger = logging.getLogger(__name__)

IMBALANCE = 10  # a warning is given if train's largest class is at least so many times its smallest
EXAMPLES = 3
SHUFFLED = 5  # at least so many images with another class in the other split are no accident


def warn(data: Data, config: Any) -> None:
    """Warns of classes with one image, of extreme imbalance, and of images that are in both train and validation."""
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
    if config.data.source == "folder":
        both = duplicates(Path(config.data.dir).expanduser(), data.splits["train"], data.splits["validation"])
        check_labels(data, both)
        if both:
            pairs = ", ".join(" = ".join(map(printable, pair)) for pair in both[:EXAMPLES])
            logger.warning(
                "%s in train too, so validation looks better than it is: %s",
                counted(len(both), "image of validation is", "images of validation are"),
                pairs + (", …" if len(both) > EXAMPLES else ""),
            )


def check_labels(data: Data, both: list[tuple[str, str]]) -> None:
    """Raises DataError if most images that are in both split folders have one class in train, another in validation.

    If validation was held out of train, images do not count: that an image lies in two class folders says nothing
    about the other labels. Fewer than `SHUFFLED` images do not count either: they may be such images.
    """
    label: dict[str, int] = {}
    for split in data.splits.values():
        label |= zip(split.files, split.labels.tolist(), strict=True)
    there = defaultdict(set)
    for file, twin in both:
        if [SPLIT_OF.get(name.partition("/")[0].lower()) for name in (file, twin)] == ["train", "validation"]:
            there[file].add(label[twin])
    apart = [file for file, labels in there.items() if label[file] not in labels]
    if len(apart) >= SHUFFLED and 2 * len(apart) > len(there):
        twin = next(twin for file, twin in both if file == apart[0])
        raise DataError(
            f"{len(apart)} of {len(there)} images that are in both train and validation have another class in each, "
            f"such as {printable(apart[0])} and {printable(twin)}: the labels of one split look shuffled; correct them"
        )


def duplicates(root: Path, train: Split, validation: Split) -> list[tuple[str, str]]:
    """Pairs (file in train, file in validation) with the same bytes; reads only files whose size occurs in both."""
    train_sizes, validation_sizes = _by_size(root, train), _by_size(root, validation)
    found = []
    for size in train_sizes.keys() & validation_sizes.keys():
        in_train = {_digest(train, index): train.files[index] for index in reversed(train_sizes[size])}
        for index in validation_sizes[size]:
            if twin := in_train.get(_digest(validation, index)):
                found.append((twin, validation.files[index]))
    return sorted(found)


def _by_size(root: Path, split: Split) -> dict[int, list[int]]:
    """Maps each size in bytes to its records. Empty and missing files are left out, since decoding reports them."""
    sizes = defaultdict(list)
    for index, file in enumerate(split.files):
        with contextlib.suppress(OSError):
            sizes[(root / file).stat().st_size].append(index)
    return {size: records for size, records in sizes.items() if size}


def _digest(split: Split, index: int) -> bytes:
    """The image's digest; if the image cannot be read, a value that no other image has."""
    try:
        return split.digest(index)
    except DataError:
        return f"{split.name} {index}".encode()
