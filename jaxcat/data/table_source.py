"""A table as data: `data.table` lists the path and the label of every image, and perhaps its split and group."""

from __future__ import annotations

import logging
import os
import re
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcat.data.decoding import printable
from jaxcat.data.division import divide
from jaxcat.data.folder import SPLIT_OF
from jaxcat.data.records import SPLITS, Data, Split, choose_classes, keep_classes
from jaxcat.data.table_reading import Table, first, read_table
from jaxcat.errors import DataError

logger = logging.getLogger(__name__)

EXAMPLES = 5
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://|(data|file|blob):", re.IGNORECASE)


class Listed(NamedTuple):
    """One record of a table; `line` is for messages. `label` is "" if the cell is empty."""

    line: int
    name: str
    path: Path
    label: str
    split: str
    group: str | None


class Problems:
    """What is wrong with the rows of a table: by kind, how many, and the lines of the first few."""

    def __init__(self, table: Table):
        self._table = table
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, line: int, detail: str = "") -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= EXAMPLES:
            shown = f" ({printable(detail)[:200]})" if detail else ""
            self._examples[kind].append(f"{self._table.row_word} {line}{shown}")

    def refuse(self) -> None:
        """Raises DataError if there are any."""
        if self._counts:
            lines = [
                f"\n  {count} × {kind}: {', '.join(self._examples[kind])}{', …' if count > EXAMPLES else ''}"
                for kind, count in self._counts.items()
            ]
            raise DataError(f"{self._table.where}: rows that cannot be used:{''.join(lines)}")


def open_table(config: Any) -> Data:
    """Indexes the images that `data.table` lists.

    Paths are relative to `data.dir` or, if that is empty, to the folder of the table. The class names are the labels of
    train, sorted. Without a split column every image is in train; without validation some of train is held out.
    The order of the rows does not matter.

    Raises:
        DataError: the table or a row of it cannot be used; the message names lines.
        ConfigError: a column is not there, or `data.classes` names a class that is not there.
    """
    data = config.data
    wanted = {key: data[f"{key}_column"] for key in ("path", "label", "split", "group")}
    table = read_table(Path(data.table).expanduser(), wanted)
    base = Path(os.path.abspath(Path(data.dir or Path(data.table).parent).expanduser()))
    if not os.path.isdir(base):
        raise DataError(f"--config.data.dir={data.dir}: there is no such folder")
    _say(table, base)
    records = _every_file_once(_listed(table, base), table)
    by_split: dict[str, list[Listed]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.name):
        by_split[record.split].append(record)
    if not by_split["train"]:
        raise DataError(f"{table.where}: no row of train: column {table.columns.get('split', '')!r} must have train")
    available = tuple(sorted({record.label for record in by_split["train"]}))
    classes = choose_classes(available, data.classes)
    splits = {}
    for name in SPLITS:
        known = _known(name, by_split[name], available, table)
        if known:
            splits[name] = keep_classes(_split(name, known, available), available, classes)
    for name in splits.keys() - {"train"}:
        _check_classes(splits[name], classes, table)
    return Data(classes, divide(splits, config, classes))


def _say(table: Table, base: Path) -> None:
    """Says which columns were found by themselves, and how the text was read."""
    if table.found:
        columns = ", ".join(f"{key}s in {table.columns[key]!r}" for key in table.found)
        logger.warning("%s: found %s; paths are relative to %s", table.where, columns, printable(str(base)))
    if table.encoding not in ("", "utf-8", "utf-8-sig"):
        logger.warning("%s: not UTF-8, read as %s; look at the class names", table.where, table.encoding)


def _listed(table: Table, base: Path) -> Iterator[Listed]:
    """Yields the rows that are good; refuses the table at the end if some are not."""
    problems = Problems(table)
    empty = [""] * len(table.lines)
    columns = [table.cells.get(key, empty) for key in ("path", "label", "split", "group")]
    has_split, has_group = "split" in table.cells, "group" in table.cells
    for line, path, label, split, group in zip(table.lines, *columns, strict=True):
        name, file, problem = locate(base, path, encoding=table.encoding)
        if problem:
            problems.add(problem, line, path)
        label, group = clean(label), clean(group)
        where = SPLIT_OF.get(split.strip().lower(), "") if has_split else "train"
        if not where:
            problems.add("a split that is none of train, validation and test", line, split)
        if not label and where != "test":
            problems.add("no label", line)
        if not label.isprintable():
            problems.add("a label with characters that cannot be printed", line, label)
        if has_group and not group:
            problems.add("no group", line)
        if not problem:
            yield Listed(line, name, file, label, where, group if has_group else None)
    problems.refuse()


def clean(cell: str) -> str:
    """A label or group as it is compared: without spaces around it, in Unicode's composed form."""
    return unicodedata.normalize("NFC", cell.strip())


def locate(base: Path, cell: str, *, encoding: str = "") -> tuple[str, Path, str]:
    """The name of the record, the file that a cell means, and what is wrong with it, or "".

    If there is no file of exactly this name, spaces around it, Windows's backslashes, the other Unicode form, and the
    bytes that the table has are tried.
    """
    if not cell.strip() or "\0" in cell:
        return "", base, "no path"
    if _URL.match(cell.strip()):
        return "", base, "a URL; download the file and name it"
    variants = [cell, cell.strip(), cell.strip().replace("\\", "/")]
    variants += [unicodedata.normalize(form, variants[-1]) for form in ("NFC", "NFD")]
    if encoding in ("cp1252", "latin-1"):
        variants.append(os.fsdecode(cell.strip().encode(encoding)))
    for variant in dict.fromkeys(variants):
        full = os.path.join(base, variant)
        if ".." in Path(variant).parts:  # not what is left when ".." is taken as text: a folder may be a link
            full = os.path.realpath(full)
        try:
            mode = os.stat(full).st_mode
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return "", base, f"a file that cannot be examined: {getattr(error, 'strerror', None) or error}"
        if not stat.S_ISREG(mode):
            return "", base, "a folder, not a file" if stat.S_ISDIR(mode) else "no regular file"
        if not os.access(full, os.R_OK):
            return "", base, "a file that may not be read"
        return _name(base, variant, full), Path(full), ""
    return "", base, "a file that is missing"


def _name(base: Path, variant: str, full: str) -> str:
    """The name of a record: its path relative to `base`, or the whole path if the table has it and it is elsewhere."""
    if ".." in Path(variant).parts and not os.path.isabs(variant):
        return Path(os.path.relpath(full, os.path.realpath(base))).as_posix()
    path = Path(full)
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _every_file_once(records: Iterator[Listed], table: Table) -> list[Listed]:
    """The records without rows that repeat one; refuses a file that has two labels, splits or groups."""
    problems, repeated = Problems(table), []
    seen: dict[str, Listed] = {}
    for record in records:
        before = seen.setdefault(record.name, record)
        if before is record:
            continue
        for key in ("label", "split", "group"):
            old, new = getattr(before, key), getattr(record, key)
            if old != new:
                both = f"{record.name}: {old!r} in {table.row_word} {before.line}, {new!r} here"
                problems.add(f"a file that has another {key} in an earlier {table.row_word}", record.line, both)
                break
        else:
            repeated.append(f"{table.row_word} {record.line}")
    problems.refuse()
    if repeated:
        logger.warning("%s: rows that repeat an earlier one count once: %s", table.where, first(repeated))
    return list(seen.values())


def _known(name: str, records: Sequence[Listed], available: Sequence[str], table: Table) -> list[Listed]:
    """The records whose label train has. Refuses others in validation, and leaves them out of test, which is said."""
    labels = set(available)
    others = [record for record in records if record.label not in labels]
    if others and name == "validation":
        problems = Problems(table)
        for record in others:
            problems.add("a label in validation that train does not have", record.line, record.label)
        problems.refuse()
    if others:
        shown = [f"{table.row_word} {record.line} ({printable(record.label) or 'no label'})" for record in others]
        logger.warning(
            "%s: %d of %d rows of test have no label that train has, and are left out: %s",
            *(table.where, len(others), len(records), first(shown)),
        )
    return [record for record in records if record.label in labels]


def _split(name: str, records: Sequence[Listed], available: Sequence[str]) -> Split:
    place = {label: index for index, label in enumerate(available)}
    labels = np.array([place[record.label] for record in records], np.int32)
    paths = [record.path for record in records]
    groups = tuple(record.group for record in records if record.group is not None)
    return Split(name, tuple(record.name for record in records), labels, paths.__getitem__, groups or None)


def _check_classes(split: Split, classes: Sequence[str], table: Table) -> None:
    """Raises DataError if a class of train has no row in validation, as for folders. For test, it is only said."""
    counts = np.bincount(split.labels, minlength=len(classes))
    if lacking := [repr(name) for name, count in zip(classes, counts, strict=True) if not count]:
        if split.name == "validation":
            raise DataError(f"{table.where}: no row of validation has the label {first(lacking)}, which train has")
        logger.warning("%s: no row of %s has the label %s", table.where, split.name, first(lacking))
