"""What is odd about data without being wrong: said once, before any long work, and obeyed."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.records import Data
from jaxcat.images import printable

logger = logging.getLogger(__name__)

IMBALANCE = 10  # the largest class of train over the smallest, from which on it is worth a word
EXAMPLES = 3


def warn(data: Data, config: Any) -> None:
    """Warn of classes with one picture, of extreme imbalance, and of pictures that are in train and in validation."""
    counts = np.bincount(data.splits["train"].labels, minlength=len(data.classes))
    single = [name for name, count in zip(data.classes, counts, strict=True) if count == 1]
    if single:
        logger.warning("%d classes have one picture in train: %s", len(single), ", ".join(single[:EXAMPLES]))
    if counts.max() >= IMBALANCE * counts.min() and config.optim.class_weight == "none":
        logger.warning(
            "class %r has %d pictures in train and %r has %d: consider --config.optim.class_weight=balanced",
            *(data.classes[counts.argmax()], counts.max(), data.classes[counts.argmin()], counts.min()),
        )
    if config.data.source == "folder":
        both = duplicates(Path(config.data.dir).expanduser(), data)
        if both:
            pairs = ", ".join(" = ".join(map(printable, pair)) for pair in both[:EXAMPLES])
            logger.warning(
                "%d pictures of validation are in train too, so validation looks better than it is: %s",
                *(len(both), pairs + (", …" if len(both) > EXAMPLES else "")),
            )


def duplicates(root: Path, data: Data) -> list[tuple[str, str]]:
    """(file in train, file in validation) with the same bytes; reads only files whose size occurs in both."""
    by_size: dict[str, dict[int, list[str]]] = {}
    for split in ("train", "validation"):
        by_size[split] = defaultdict(list)
        for file in data.splits[split].files:
            try:
                by_size[split][(root / file).stat().st_size].append(file)
            except OSError:
                continue  # reported as unreadable when it is decoded
    found = []
    for size in sorted(by_size["train"].keys() & by_size["validation"].keys()):
        in_train = {_digest(root / file): file for file in reversed(by_size["train"][size])}
        for file in by_size["validation"][size]:
            if size and (twin := in_train.get(_digest(root / file))):
                found.append((twin, file))
    return sorted(found)


def _digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes; of its name where it cannot be read, which equals no other."""
    if not path.is_file():
        return str(path).encode("utf-8", "surrogateescape")
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return str(path).encode("utf-8", "surrogateescape")
