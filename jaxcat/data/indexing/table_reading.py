"""Reads a table whose content says what it is: CSV, TSV or Parquet."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from jaxcat.data.indexing.parquet_table import read_parquet
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.indexing.table_columns import Table
from jaxcat.data.indexing.text_table import read_text
from jaxcat.errors import DataError, one_line
from jaxcat.wording import printable

MOST_BYTES = 2**29  # of a table; a million rows take about 0.1 GB

# How a file that is no table begins → what it is, and what to do.
OTHERS = {
    b"PK\x03\x04": "an Excel workbook or another zip file; save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV (UTF-8)",
    b"\x1f\x8b": "a file compressed by gzip; unpack it with gunzip",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"ARROW1": "an Arrow or Feather file; save the table as Parquet or CSV",
    b"{": "JSON; save the table as CSV",
    b"[": "JSON; save the table as CSV",
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF"), "an image; name the folder of the class folders"),
    b"<": "an HTML or XML page; save the table as CSV",
}


def read_table(path: Path, wanted: Mapping[str, str], *, where: str = "", rules: int = INDEX_RULES) -> Table:
    """Reads a table.

    Args:
        path: the file; its content says what it is, not its suffix.
        wanted: for "path", "label", "split" and "group" the name of a column; "" to find it by a usual name; `WITHOUT`
            to do without.
        where: the file in messages; by default the setting that names it.
        rules: version of the indexing rules.

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
        return read_parquet(content, wanted, where=where, rules=rules)
    if not content.strip():
        raise DataError(f"{where}: the table is empty")
    for beginning, what in OTHERS.items():
        if content.lstrip().startswith(beginning):
            raise DataError(f"{where}: no CSV, TSV or Parquet table; it looks like {what}")
    return read_text(content, wanted, where=where, rules=rules)
