"""Reads the columns of a table that matter, as text, with the line of every row: from CSV, TSV or Parquet."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import re
import shlex
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcat.data.indexing.listed import first
from jaxcat.data.indexing.split_names import split_name
from jaxcat.data.indexing.table import unescape_cell
from jaxcat.data.records import SPLITS
from jaxcat.errors import ConfigError, DataError, one_line
from jaxcat.wording import printable

MOST_BYTES = 2**29  # of a table; a million rows take about 0.1 GB
MOST_ROWS = 2**26  # of a Parquet file, where few bytes can say very many rows
DELIMITERS = (",", ";", "\t", "|")
WITHOUT = "none"  # in place of a column's name: do without it, though one of the usual names is there

# What a column holds → its usual names, as `_simple` writes them.
USUAL = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "img",
        "img_path",
    ),
    "label": ("label", "labels", "class", "class_name", "category", "target", "species"),
    "split": ("split", "subset", "partition"),
    "group": ("group", "group_id", "patient", "patient_id", "subject", "subject_id", "video", "video_id", "burst"),
}
NEEDED = ("path", "label")
_MOST_SPLIT_NAMES = 10  # a column with more different cells does not name splits

# How a file that is no table begins → what it is, and what to do.
OTHERS = {
    b"PK\x03\x04": "an Excel workbook or another zip file; save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV (UTF-8)",
    b"\x1f\x8b": "a file compressed by gzip; unpack it with gunzip",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"ARROW1": "an Arrow or Feather file; save the table as Parquet or CSV",
    b"{": "JSON; save the table as CSV",
    b"[": "JSON; save the table as CSV",
    b"<": "an HTML or XML page; save the table as CSV",
}


class Table(NamedTuple):
    """The rows of a table.

    Attributes:
        where: the table's file, to be named in messages.
        row_word: "line" or, in Parquet, "row".
        lines: the line where each row begins, from 1; in Parquet the number of the row.
        cells: "path", "label" and perhaps "split" and "group" → the cell of each row; "" if it is empty.
        columns: the same keys → the column's name.
        found: keys of the columns that were found by their usual names.
        encoding: of the text; "" in Parquet.
    """

    where: str
    row_word: str
    lines: list[int]
    cells: dict[str, list[str]]
    columns: dict[str, str]
    found: list[str]
    encoding: str


def read_table(path: Path, wanted: Mapping[str, str], *, where: str = "") -> Table:
    """Reads a table.

    Args:
        path: the file; its content says what it is, not its suffix.
        wanted: for "path", "label", "split" and "group" the name of a column; "" to find it by a usual name; `WITHOUT`
            to do without.
        where: the file in messages; by default the setting that names it.

    Raises:
        DataError: there is no such file, it is no table, or a row is damaged; the message names the line.
        ConfigError: a column is not there, or several have usual names.
    """
    where = where or f"--config.data.table={printable(str(path))}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{where}: not a regular file; name a CSV, TSV or Parquet file")
        if status.st_size > MOST_BYTES:
            raise DataError(f"{where}: {status.st_size:,} bytes are more than the {MOST_BYTES:,} that a table may have")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: {one_line(error)}") from error
    if content.startswith(b"PAR1"):
        return _read_parquet(content, wanted, where=where)
    if not content.strip():
        raise DataError(f"{where}: the table is empty")
    for beginning, what in OTHERS.items():
        if content.lstrip().startswith(beginning):
            raise DataError(f"{where}: no CSV, TSV or Parquet table; it looks like {what}")
    return _read_text(content, wanted, where=where)


# text -----------------------------------------------------------------------------------------------------------------


def _read_text(content: bytes, wanted: Mapping[str, str], *, where: str) -> Table:
    text, encoding = decode_text(content)
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
    for line, row in _records(text, delimiter, where=where, skipped=skipped):
        if header is None:
            header = [unescape_cell(name).strip() for name in row]
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
            if len(unused[place]) > _MOST_SPLIT_NAMES:
                del unused[place]
    if header is None:
        raise DataError(f"{where}: the table is empty")
    if ragged:
        raise DataError(
            f"{where}: {len(ragged)} rows do not have {len(header)} cells as the header has: {first(ragged)}; a cell"
            f" with {delimiter!r} in it needs quotes around it"
        )
    _refuse_unused_splits({header[place]: values for place, values in unused.items()}, columns, wanted, where=where)
    cells = {key: [unescape_cell(row[place]) for row in rows] for place, key in enumerate(columns)}
    return Table(where, "line", lines, cells, columns, found, encoding)


def _records(text: str, delimiter: str, *, where: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yields the line where a record begins, and its cells. Leaves empty lines out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = 1 + skipped
    try:
        for row in reader:
            if row and any(row):
                yield begin, row
            begin = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise DataError(f"{where}: line {begin}: {error}; is a quote missing, or one too many?") from error


def decode_text(content: bytes) -> tuple[str, str]:
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
        there = [key for key in NEEDED if _candidates(key, header, wanted.get(key, ""))]
        return len(there), len(header)

    return max(DELIMITERS, key=fit)  # the first of several that fit alike


# columns --------------------------------------------------------------------------------------------------------------


def choose_columns(header: Sequence[str], wanted: Mapping[str, str], *, where: str) -> tuple[dict[str, str], list[str]]:
    """The name of each column that is used, and the keys of those found by a usual name; see `read_table`."""
    columns, found = {}, []
    for key in USUAL:
        asked = wanted.get(key, "")
        names = _candidates(key, header, asked)
        if asked == WITHOUT and WITHOUT not in header and key not in NEEDED:
            continue
        flag = f"--config.data.{key}_column"
        if not names and (asked or key in NEEDED):
            raise ConfigError(_no_column(key, header, asked, where=where))
        if len(names) > 1:
            optional = "" if key in NEEDED else f", or {flag}={WITHOUT} to use none of them"
            raise ConfigError(
                f"{where}: {' and '.join(map(repr, names))} may each be the column of {key}s: name it with {flag}=NAME"
                f"{optional}"
            )
        for name in names:
            if Counter(header)[name] > 1:
                raise DataError(f"{where}: several columns are called {name!r}; keep one")
            columns[key] = name
            if not asked:
                found.append(key)
    return columns, found


def split_of_cell(cell: str) -> str:
    """The split that a cell names, in the words that folders may have; "" if it names none."""
    name = split_name(cell.strip())
    return name.split if name and not name.rest and name.split in SPLITS else ""


def _refuse_unused_splits(
    unused: Mapping[str, Collection[str]], columns: Mapping[str, str], wanted: Mapping[str, str], *, where: str
) -> None:
    """Raises ConfigError if a column that is not used names splits by its cells: train and test would be mixed."""
    if "split" in columns or wanted.get("split", "") == WITHOUT:
        return
    for name, values in unused.items():
        splits = {split_of_cell(value) for value in values}
        if len(splits) > 1 and "" not in splits:
            raise ConfigError(
                f"{where}: column {printable(name)!r} seems to say which split a row belongs to "
                f"({', '.join(sorted(map(printable, values)))}): name it with --config.data.split_column="
                f"{shlex.quote(printable(name))}, or use no column with --config.data.split_column={WITHOUT}"
            )


def _candidates(key: str, header: Sequence[str], asked: str) -> list[str]:
    """The columns that may be the one of this key: the one asked for, else those of a usual name."""
    if asked:
        return [asked] if asked in header else []
    return [name for name in dict.fromkeys(header) if _simple(name) in USUAL[key]]


def _simple(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", unicodedata.normalize("NFKC", name).strip().lower())


def _no_column(key: str, header: Sequence[str], asked: str, *, where: str) -> str:
    """What is wrong with a header that lacks a column."""
    shown = ", ".join(printable(name)[:40] for name in header[:8]) + (", …" if len(header) > 8 else "")
    near = difflib.get_close_matches(asked, header, n=1) if asked else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if not asked:
        hint = f"; name it with --config.data.{key}_column=NAME"
        if any(re.search(r"\.[A-Za-z0-9]{2,5}$", name) for name in header):
            hint = "; that looks like a record: put a line with names above it, such as path,label"
    what = f"no column {asked!r}" if asked else f"no column of {key}s by a usual name ({', '.join(USUAL[key][:4])} …)"
    return f"{where}: {what}; its first line is: {shown}{hint}"


# Parquet --------------------------------------------------------------------------------------------------------------


def _read_parquet(content: bytes, wanted: Mapping[str, str], *, where: str) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{where}: reading Parquet needs pyarrow: pip install pyarrow, or save it as CSV") from error
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names, rows = list(file.schema_arrow.names), file.metadata.num_rows
    except Exception as error:  # Arrow raises many kinds of exception for damaged files
        raise DataError(f"{where}: a damaged Parquet file: {one_line(error)}") from error
    if rows > MOST_ROWS:
        raise DataError(f"{where}: {rows:,} rows are more than the {MOST_ROWS:,} that a table may have")
    columns, found = choose_columns(names, wanted, where=where)
    cells = {}
    for key, name in columns.items():
        try:
            column = file.read(columns=[name]).column(name)
        except Exception as error:
            raise DataError(f"{where}: column {name!r} cannot be read: {one_line(error)}") from error
        cells[key] = _as_text(column, pa, what=f"{where}: column {name!r}")
    _refuse_unused_splits(_few_texts(file, names, columns, pa), columns, wanted, where=where)
    return Table(where, "row", list(range(1, rows + 1)), cells, columns, found, "")


def _few_texts(file: Any, names: Sequence[str], columns: Mapping[str, str], pa: Any) -> dict[str, list[str]]:
    """Name → values, of the text columns that are not used and have few values."""
    few = {}
    for name in names:
        if name in columns.values() or names.count(name) > 1:
            continue
        try:
            values = file.read(columns=[name]).column(name).unique().to_pylist()
        except Exception:  # a column of another type, or damaged; it is not used
            continue
        if len(values) <= _MOST_SPLIT_NAMES and all(isinstance(value, str) for value in values):
            few[name] = values
    return few


def _as_text(column: Any, pa: Any, *, what: str) -> list[str]:
    """The cells of a column as text: whole numbers without a point, even if Arrow has stored them as floats."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind.value_type)
        kind = kind.value_type
    values = column.to_pylist()
    if pa.types.is_null(kind):
        return [""] * len(values)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return [value or "" for value in values]
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return ["" if value is None else str(value) for value in values]
    if pa.types.is_floating(kind):
        values = [None if value is None or value != value else float(value) for value in values]
        if broken := [value for value in values if value is not None and not value.is_integer()]:
            raise DataError(f"{what} has fractions, such as {broken[0]:g}; store it as text or as whole numbers")
        return ["" if value is None else str(int(value)) for value in values]
    raise DataError(f"{what} is of type {kind}; store it as text or as whole numbers")
