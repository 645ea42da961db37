"""Twins: records that are the same image, by the bytes of their files or by their decoded pixels."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcat.data.archives import archives
from jaxcat.data.records import Split
from jaxcat.errors import DataError
from jaxcat.wording import printable

EXAMPLES = 3
_PEEK = 4096  # bytes at the end of a file, compared before whole files are


class Record(NamedTuple):
    """A record of one of several splits."""

    split: str
    number: int


Group = tuple[Record, ...]  # at least two, in the order of the splits


def by_bytes(splits: Mapping[str, Split]) -> list[Group]:
    """Groups of records whose files have the same bytes.

    It reads only files that have the size and the last bytes of another. Images that are not files are in no group.
    Empty and unreadable files are left out: decoding reports them.
    """
    of_files = [
        Record(name, index)
        for name, split in splits.items()
        if len(split) and isinstance(split.stored(0), Path)
        for index in range(len(split))
    ]
    alike = _same(of_files, lambda record: _size(_path(splits, record)))
    alike = [group for sizes in alike for group in _same(sizes, lambda record: _end(_path(splits, record)))]
    return [
        group for ends in alike for group in _same(ends, lambda record: _digest(splits[record.split], record.number))
    ]


def by_pixels(splits: Mapping[str, Split], pixels: Mapping[str, Sequence[bytes]]) -> list[Group]:
    """Groups of records with the same decoded pixels that `by_bytes` does not find.

    Only groups that are worth a warning are looked at: those with two labels, or in two splits. Arrays are in no group:
    they are drawn or come with a library.

    Args:
        pixels: for each split, the digest of each record's decoded pixels.
    """
    records = [Record(name, number) for name in pixels for number in range(len(splits[name]))]
    groups = []
    for alike in _same(records, lambda record: pixels[record.split][record.number]):
        if len({record.split for record in alike}) > 1 or len(labels_of(splits, alike)) > 1:
            groups += _same(alike, lambda record: None if _is_array(splits, record) else True)
    return [group for group in groups if _is_new(splits, group)]


def _is_array(splits: Mapping[str, Split], record: Record) -> bool:
    return isinstance(splits[record.split].stored(record.number), np.ndarray)


def _is_new(splits: Mapping[str, Split], group: Group) -> bool:
    """Whether `by_bytes` cannot find the whole group, because not all have the same bytes or not all are files."""
    in_files = all(_path(splits, record) for record in group)
    return not in_files or len({_digest(splits[record.split], record.number) for record in group}) > 1


def labels_of(splits: Mapping[str, Split], group: Iterable[Record]) -> set[int]:
    """The labels in a group."""
    return {int(splits[record.split].labels[record.number]) for record in group}


def with_two_classes(splits: Mapping[str, Split], groups: Iterable[Group]) -> list[Group]:
    """The groups whose records do not all have the same label."""
    return [group for group in groups if len(labels_of(splits, group)) > 1]


def described(splits: Mapping[str, Split], group: Sequence[Record], classes: Sequence[str]) -> str:
    """A group in a message: a record of each label, or the first two if all have one: `FILE ('cat') =
    FILE ('dog')`; without `classes`, files only."""
    first: dict[int, Record] = {}
    for record in group:
        first.setdefault(int(splits[record.split].labels[record.number]), record)
    shown = list(first.values()) if len(first) > 1 else list(_of_different_splits(group))
    return " = ".join(_named(splits[each.split], each.number, classes) for each in shown[:EXAMPLES])


def _named(split: Split, number: int, classes: Sequence[str]) -> str:
    file = printable(split.files[number])
    return f"{file} ({classes[split.labels[number]]!r})" if classes else file


def _of_different_splits(group: Sequence[Record]) -> Sequence[Record]:
    first = {record.split: record for record in reversed(group)}
    return tuple(reversed(first.values())) if len(first) > 1 else group[:2]


def _same(records: Iterable[Record], key: Callable[[Record], Hashable]) -> list[Group]:
    """Groups of at least two records with the same key; a record whose key is None is in no group."""
    groups = defaultdict(list)
    for record in records:
        if (value := key(record)) is not None:
            groups[value].append(record)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _path(splits: Mapping[str, Split], record: Record) -> Path | None:
    stored = splits[record.split].stored(record.number)
    return stored if isinstance(stored, Path) else None


def _size(path: Path | None) -> int | None:
    try:
        return archives.getsize(path) or None if path else None
    except (OSError, ValueError):
        return None


def _end(path: Path | None) -> bytes | None:
    """The last bytes of a regular file."""
    try:
        if path is None or not archives.isfile(path):
            return None
        with archives.opened(path) as file:
            file.seek(-min(_PEEK, archives.getsize(path)), os.SEEK_END)
            return file.read()
    except (OSError, ValueError):
        return None


def _digest(split: Split, index: int) -> bytes | None:
    try:
        return split.digest(index)
    except DataError:
        return None
