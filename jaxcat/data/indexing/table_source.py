"""A table as data: `data.table` lists the path and the label of every image, and perhaps its split and group."""

from __future__ import annotations

import itertools
import logging
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxcat.data.archives import archives
from jaxcat.data.images.formats import SUFFIXES
from jaxcat.data.indexing.listed import Listed, Problems, clean, data_of, refuse_unknown, split_of
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.indexing.table_columns import WITHOUT, Table, split_of_cell
from jaxcat.data.indexing.table_reading import read_table
from jaxcat.data.records import Data, Split
from jaxcat.errors import DataError
from jaxcat.wording import first_few, is_printable, printable

logger = logging.getLogger(__name__)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://|(data|file|blob):", re.IGNORECASE)


def open_table(config: Any, *, rules: int = INDEX_RULES) -> Data:
    """Indexes the images that `data.table` lists.

    Paths are relative to `data.dir` or, if that is empty, to the folder of the table. The class names are the labels of
    train, sorted. Without a split column every image is in train; without validation some of train is held out.
    The order of the rows does not matter.

    Args:
        rules: version of the indexing rules.

    Raises:
        DataError: the table or a row of it cannot be used; the message names lines.
        ConfigError: a column is not there, or `data.classes` names a class that is not there.
    """
    data = config.data
    wanted = {key: data[f"{key}_column"] for key in ("path", "label", "split", "group")}
    table = read_table(Path(data.table).expanduser(), wanted, rules=rules)
    base = Path(os.path.abspath(Path(data.dir or Path(data.table).parent).expanduser()))
    archives.open_archive(base)
    if not archives.isdir(base):
        raise DataError(f"--config.data.dir={data.dir}: there is no such folder")
    _say(table, base)
    records = _every_file_once(_listed(table, base), table)
    return data_of(records, config, where=table.where)


def open_labelled_table(path: Path, classes: tuple[str, ...], config: Any) -> Split:
    """Every image that a table lists, as one split for evaluation; columns of splits and groups do not matter.

    Paths are relative to the folder of the table. A label is the place of the class in `classes`.

    Raises:
        DataError: the table or a row of it cannot be used, or a label is not in `classes`; the message names lines.
    """
    where = f"--data {printable(str(path))}"
    wanted = {key: config.data[f"{key}_column"] for key in ("path", "label")} | {"split": WITHOUT, "group": WITHOUT}
    table = read_table(path, wanted, where=where)
    base = path.absolute().parent
    _say(table, base)
    records = _every_file_once(_listed(table, base), table)
    refuse_unknown(records, classes, "a label that this classifier does not know", where=where)
    if not records:
        raise DataError(f"{where}: the table has no row")
    return split_of(printable(path.stem), sorted(records, key=lambda record: record.name), classes)


def _say(table: Table, base: Path) -> None:
    """Says which columns were found without a setting, and how the text was read."""
    if any(table.columns[key] != key for key in table.found):  # else they are as README names them
        columns = ", ".join(f"{key}s in {table.columns[key]!r}" for key in table.found)
        logger.warning("%s: found %s; paths are relative to %s", table.where, columns, printable(str(base)))
    others = sorted({cell.strip() for cell in set(table.cells.get("split", ())) if not split_of_cell(cell, alone=True)})
    if taken := [f"{cell!r} for {split_of_cell(cell)}" for cell in others if split_of_cell(cell)]:
        logger.warning("%s: column %r: words read as splits: %s", table.where, table.columns["split"], first_few(taken))
    if table.encoding not in ("", "utf-8", "utf-8-sig"):
        logger.warning("%s: not UTF-8, read as %s; look at the class names", table.where, table.encoding)


def _listed(table: Table, base: Path) -> Iterator[Listed]:
    """Yields the rows that are good; refuses the table at the end if some are not."""
    problems = Problems(table.where)
    empty = [""] * len(table.lines)
    columns = [table.cells.get(key, empty) for key in ("path", "label", "split", "group")]
    has_split, has_group = "split" in table.cells, "group" in table.cells
    for line, path, label, split, group in zip(table.lines, *columns, strict=True):
        place = f"{table.row_word} {line}"
        name, file, problem = locate(base, path, encoding=table.encoding)
        if problem:
            problems.add(problem, place, f"{path}: {name}" if name else path)
        label, group = clean(label), clean(group)
        where = split_of_cell(split) if has_split else "train"
        if not where:
            problems.add("a split that is none of train, validation and test", place, split)
        if not label and where != "test":
            problems.add("no label", place)
        if not is_printable(label):
            problems.add("a label with characters that cannot be printed", place, label)
        if has_group and not group:
            problems.add("no group", place)
        if not problem:
            yield Listed(place, name, file, label, where, group if has_group else None)
    problems.refuse()


def locate(base: Path, cell: str, *, encoding: str = "") -> tuple[str, Path, str]:
    """The name of the record, the file that a cell means, and what is wrong with it, or "".

    If something is wrong, the name is "" or says more about it. If there is no file of exactly this name, it is tried
    without spaces around it, with slashes in place of Windows's backslashes, in the other Unicode form, as the bytes in
    the table, and with an image's suffix, because many tables list images without one.
    """
    if not cell.strip() or "\0" in cell:
        return "", base, "no path"
    if _URL.match(cell.strip()):
        return "", base, "a URL; download the file and name it"
    variants = [cell, cell.strip(), cell.strip().replace("\\", "/")]
    variants += [unicodedata.normalize(form, variants[-1]) for form in ("NFC", "NFD")]
    if encoding in ("cp1252", "latin-1"):
        variants.append(os.fsdecode(cell.strip().encode(encoding)))
    named: list[str] = []  # looked for only if no file has the name as it stands

    def with_suffix() -> Iterator[str]:
        named.extend(_with_suffix(base, variants[2:]))
        yield from named if len(named) == 1 else ()

    for variant in itertools.chain(dict.fromkeys(variants), with_suffix()):
        full = os.path.join(base, variant)
        if ".." in Path(variant).parts:  # not what is left when ".." is taken as text: a folder may be a link
            full = archives.realpath(Path(full))
        try:
            status = archives.stat_file(Path(full))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return "", base, f"a file that cannot be examined: {getattr(error, 'strerror', None) or error}"
        if archives.isdir(full):
            return "", base, "a folder, not a file"
        if status and not stat.S_ISREG(status.st_mode):
            return "", base, "no regular file"
        if status and not os.access(full, os.R_OK):
            return "", base, "a file that may not be read"
        return _name(base, variant, full), Path(full), ""
    if named:
        return ", ".join(named), base, "a name that several files have; write it with its suffix"
    return "", base, "a file that is missing"


def _with_suffix(base: Path, variants: Sequence[str]) -> list[str]:
    """The names of the images that a cell without suffix may mean."""
    for variant in dict.fromkeys(variants):
        if Path(variant).suffix.lower() in SUFFIXES:
            break
        named = [variant + suffix for each in sorted(SUFFIXES) for suffix in (each, each.upper())]
        if there := [name for name in named if archives.isfile(base / name)]:
            return there
    return []


def _name(base: Path, variant: str, full: str) -> str:
    """The name of a record: its path relative to `base`, or the whole path if the table has it and it is elsewhere."""
    if ".." in Path(variant).parts and not os.path.isabs(variant):
        return Path(os.path.relpath(full, os.path.realpath(base))).as_posix()
    path = Path(full)
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _every_file_once(records: Iterator[Listed], table: Table) -> list[Listed]:
    """The records without rows that repeat one; refuses a file that has two labels, splits or groups."""
    problems, repeated = Problems(table.where), []
    seen: dict[str, Listed] = {}
    for record in records:
        before = seen.setdefault(record.name, record)
        if before is record:
            continue
        for key in ("label", "split", "group"):
            old, new = getattr(before, key), getattr(record, key)
            if old != new:
                both = f"{record.name}: {old!r} in {before.place}, {new!r} here"
                problems.add(f"a file that has another {key} in an earlier {table.row_word}", record.place, both)
                break
        else:
            repeated.append(record.place)
    problems.refuse()
    if repeated:
        logger.warning("%s: rows that repeat an earlier one count once: %s", table.where, first_few(repeated))
    return list(seen.values())
