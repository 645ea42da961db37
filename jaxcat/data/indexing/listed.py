"""Records whose labels come from a list or from file names: what is wrong with them, and the splits they make."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcat.data.division import divide
from jaxcat.data.indexing.skipped import Skipped
from jaxcat.data.records import SPLITS, Data, Split, choose_classes, composed, frequent_classes, keep_classes
from jaxcat.errors import DataError
from jaxcat.wording import first_few, printable

logger = logging.getLogger(__name__)

EXAMPLES = 5  # of rows or files, in a message


class Listed(NamedTuple):
    """One record of a list.

    Attributes:
        place: where the list has it, such as "line 3"; for messages.
        name: identifies the record.
        path: of the file.
        label: the class; "" if the record has none.
        split: "train", "validation" or "test".
        group: None if the list has no groups.
    """

    place: str
    name: str
    path: Path
    label: str
    split: str
    group: str | None = None


class Problems:
    """What is wrong with the records of a list: by kind, how many, and the first few."""

    def __init__(self, where: str):
        self._where = where
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, place: str, detail: str = "") -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= EXAMPLES:
            self._examples[kind].append(place + (f" ({printable(detail)[:200]})" if detail else ""))

    def refuse(self, advice: str = "") -> None:
        """Raises DataError if there are any."""
        if self._counts:
            lines = [
                f"\n  {count:,} × {kind}: {', '.join(self._examples[kind])}{', …' if count > EXAMPLES else ''}"
                for kind, count in self._counts.items()
            ]
            raise DataError(f"{self._where} has records that cannot be used:{''.join(lines)}{advice}")


def refuse_unknown(
    records: Iterable[Listed], classes: Sequence[str], problem: str, *, where: str, advice: str = ""
) -> None:
    """Raises DataError if a label is not in `classes`, those of the classifier that is evaluated."""
    problems = Problems(where)
    for record in records:
        if record.label not in classes:
            problems.add(problem, record.place, record.label)
    problems.refuse(f"\nit knows {', '.join(classes)}{advice}")


def clean(text: str) -> str:
    """A label or group as it is compared: without spaces around it, in Unicode's composed form."""
    return composed(text.strip())


def data_of(records: Iterable[Listed], config: Any, *, where: str, skipped: Skipped | None = None) -> Data:
    """The data that these records make. Their order does not matter.

    The class names are the labels of train, sorted. Records of test whose label train does not have are left out, with
    a warning. Without validation, some of train is held out.

    Args:
        records: of train and perhaps other splits; every record has a name of its own.
        where: what the list is called in messages.
        skipped: the files that were found but are no records.

    Raises:
        DataError: there is no record of train, or validation has another label, or lacks one.
        ConfigError: `data.classes` names a class that is not there.
    """
    by_split: dict[str, list[Listed]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.name):
        by_split[record.split].append(record)
    if not by_split["train"]:
        there = [name for name in SPLITS if by_split[name]]
        raise DataError(f"{where}: no image of train" + (f", only of {' and '.join(there)}" if there else ""))
    available = tuple(sorted({record.label for record in by_split["train"]}))
    chosen = choose_classes(available, config.data.classes)
    number = Counter(record.label for record in by_split["train"])
    classes = frequent_classes({name: number[name] for name in chosen}, config)
    splits = {}
    for name in SPLITS:
        if known := _known(name, by_split[name], available, where):
            splits[name] = keep_classes(split_of(name, known, available), available, classes)
    for name in [name for name in SPLITS if name in splits and name != "train"]:
        _check_classes(splits[name], classes, where)
    held_out = "validation" not in splits or bool(config.data.fold)
    return Data(classes, divide(splits, config, classes), skipped=skipped or Skipped(), held_out=held_out)


def _known(name: str, records: Sequence[Listed], available: Sequence[str], where: str) -> list[Listed]:
    """The records whose label train has. Refuses others in validation; leaves them out of test with a warning."""
    labels = set(available)
    others = [record for record in records if record.label not in labels]
    if others and name == "validation":
        problems = Problems(where)
        for record in others:
            problems.add("a label in validation that train does not have", record.place, record.label)
        problems.refuse()
    if others:
        shown = [f"{record.place} ({printable(record.label) or 'no label'})" for record in others]
        logger.warning(
            "%s: %s of %s images of test have no label that train has, and are left out: %s",
            *(where, f"{len(others):,}", f"{len(records):,}", first_few(shown)),
        )
    return [record for record in records if record.label in labels]


def split_of(name: str, records: Sequence[Listed], available: Sequence[str]) -> Split:
    """The split of these records; a label is the place of the class in `available`."""
    place = {label: index for index, label in enumerate(available)}
    labels = np.array([place[record.label] for record in records], np.int32)
    paths = [record.path for record in records]
    groups = tuple(record.group for record in records if record.group is not None)
    return Split(name, tuple(record.name for record in records), labels, paths.__getitem__, groups=groups or None)


def _check_classes(split: Split, classes: Sequence[str], where: str) -> None:
    """Raises DataError if a class of train has no image in validation, as for folders. For test it only warns."""
    counts = np.bincount(split.labels, minlength=len(classes))
    if lacking := [repr(name) for name, count in zip(classes, counts, strict=True) if not count]:
        if split.name == "validation":
            raise DataError(f"{where}: no image of validation has the label {first_few(lacking)}, which train has")
        logger.warning("%s: no image of %s has the label %s", where, split.name, first_few(lacking))
