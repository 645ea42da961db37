"""Reads the columns of a CSV or TSV table that matter, with the line of every row."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping

from jaxcat.data.indexing.table_columns import (
    MOST_SPLIT_NAMES,
    NEEDED,
    Table,
    candidates,
    choose_columns,
    refuse_unused_splits,
)
from jaxcat.errors import DataError
from jaxcat.escaping import from_cell
from jaxcat.wording import counted, first_few

DELIMITERS = (",", ";", "\t", "|")


def read_text(content: bytes, wanted: Mapping[str, str], *, where: str, rules: int) -> Table:
    """The rows of a CSV or TSV file, as `read_table` returns them. Raises what `read_table` raises."""
    text, encoding = _decode_text(content)
    if "\0" in text:
        raise DataError(f"{where}: it has NUL characters, so it is no text; save the table as CSV (UTF-8)")
    said = re.match(r"sep=(.)\r?\n", text)  # how Excel names the delimiter
    skipped = 1 if said else 0
    text = text[said.end() :] if said else text
    delimiter = said[1] if said else _delimiter(text, wanted)
    header: list[str] | None = None
    unused: dict[int, set[str]] = {}
    lines: list[int] = []
    rows: list[list[str]] = []
    ragged: list[str] = []
    for line, row in _rows(text, delimiter, where=where, skipped=skipped):
        if header is None:
            header = [from_cell(name).strip() for name in row]
            columns, found = choose_columns(header, wanted, where=where)
            places = [header.index(name) for name in columns.values()]
            unused = {place: set() for place, name in enumerate(header) if name not in columns.values()}
            continue
        if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
            ragged.append(f"line {line} has {len(row)}")
            continue
        lines.append(line)
        rows.append([row[place] for place in places])
        for place in list(unused):
            unused[place].add(row[place].strip())
            if len(unused[place]) > MOST_SPLIT_NAMES:
                del unused[place]
    if header is None:
        raise DataError(f"{where}: the table is empty")
    if ragged:
        raise DataError(
            f"{where}: {counted(len(ragged), 'row')} with other than the {len(header)} cells of the header: "
            f"{first_few(ragged)}; a cell with {delimiter!r} in it needs quotes around it"
        )
    few = {header[place]: values for place, values in unused.items()}
    refuse_unused_splits(few, columns, wanted, where=where, rules=rules)
    cells = {key: [from_cell(row[place]) for row in rows] for place, key in enumerate(columns)}
    return Table(where, "line", lines, cells, columns, found, encoding)


def _rows(text: str, delimiter: str, *, where: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yields the line where a row begins, and its cells. Leaves empty lines out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = 1 + skipped
    try:
        for row in reader:
            if row and any(row):
                yield begin, row
            begin = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise DataError(f"{where}: line {begin}: {error}; is a quote missing, or one too many?") from error


def _decode_text(content: bytes) -> tuple[str, str]:
    """The text of a file and its encoding: by its byte order mark, else UTF-16 or UTF-8, else that of Windows."""
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encodings = [name for mark, name in marks.items() if content.startswith(mark)][:1]
    start = content[:1000]
    if not encodings and 2 * start[1::2].count(0) > len(start[1::2]):
        encodings = ["utf-16-le"]
    if not encodings and 2 * start[::2].count(0) > len(start[::2]):
        encodings = ["utf-16-be"]
    for encoding in [*encodings, "utf-8", "cp1252"]:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1"), "latin-1"  # it has a letter for every byte


def _delimiter(text: str, wanted: Mapping[str, str]) -> str:
    """The delimiter with which the header has most of the wanted columns, then most columns."""

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            header = [
                name.strip() for name in next(csv.reader(io.StringIO(text[: 10**6], newline=""), delimiter=delimiter))
            ]
        except (csv.Error, StopIteration):
            return 0, 0
        there = [key for key in NEEDED if candidates(key, header, wanted.get(key, ""))]
        return len(there), len(header)

    return max(DELIMITERS, key=fit)  # the first of several that fit alike
