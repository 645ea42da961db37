"""Reads the columns of a Parquet table that matter, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxcat.data.indexing.table_columns import MOST_SPLIT_NAMES, Table, choose_columns, refuse_unused_splits
from jaxcat.errors import DataError, one_line

MOST_ROWS = 2**26  # of a Parquet file, where few bytes can say very many rows


def read_parquet(content: bytes, wanted: Mapping[str, str], *, where: str, rules: int) -> Table:
    """The rows of a Parquet file, as `read_table` returns them. Raises what `read_table` raises."""
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
    refuse_unused_splits(_few_texts(file, names, columns), columns, wanted, where=where, rules=rules)
    return Table(where, "row", list(range(1, rows + 1)), cells, columns, found, "")


def _few_texts(file: Any, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, list[str]]:
    """Name → values as text, of the columns of text or whole numbers that are not used and have few values."""
    few = {}
    for name in names:
        if name in columns.values() or names.count(name) > 1:
            continue
        try:
            values = file.read(columns=[name]).column(name).unique().to_pylist()
        except Exception:  # a column of another type, or damaged; it is not used
            continue
        if len(values) <= MOST_SPLIT_NAMES and all(isinstance(value, str | bool | int | None) for value in values):
            few[name] = ["" if value is None else str(value) for value in values]
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
