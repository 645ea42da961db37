"""Tables of images and labels: CSV, TSV and Parquet files, read and written so that no spreadsheet runs a cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A spreadsheet takes a cell that begins with one of these for a formula (the last four are their full-width forms).
_FORMULA = "[=+\\-@\t\r\n＝＋－＠]"
_RUN_BY_SPREADSHEETS = re.compile(f"'*{_FORMULA}")
_ESCAPED = re.compile(f"'+{_FORMULA}")


def escape_cell(text: str) -> str:
    """The text with an apostrophe before it if a spreadsheet would run it as a formula; `unescape_cell` is the inverse.

    A text that looks escaped already gets one more apostrophe, so that reading gives back what was written.
    """
    return f"'{text}" if _RUN_BY_SPREADSHEETS.match(text) else text


def unescape_cell(text: str) -> str:
    """The text that `escape_cell` made this cell from."""
    return text[1:] if _ESCAPED.match(text) else text


def class_columns(classes: Sequence[str], fixed: Sequence[str]) -> list[str]:
    """The name of each class's column in a CSV file that also has the columns `fixed`; no two columns are named alike.

    It is the escaped name of the class. A class that is called as a column before it becomes `label (class)`, and
    `label (class 2)` if there is another of that name.
    """
    taken, columns = {*fixed}, []
    named = {escape_cell(name) for name in classes}
    for name in classes:
        column, number = escape_cell(name), 1
        while column in taken or (number > 1 and column in named):
            column = escape_cell(f"{name} (class)" if number == 1 else f"{name} (class {number})")
            number += 1
        taken.add(column)
        columns.append(column)
    return columns
