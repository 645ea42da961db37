"""Tables of images and labels: CSV, TSV and Parquet files, read and written so that no spreadsheet runs a cell."""

from __future__ import annotations

from collections.abc import Sequence

from jaxcat.escaping import for_cell


def class_columns(classes: Sequence[str], fixed: Sequence[str]) -> list[str]:
    """The name of each class's column in a CSV file that also has the columns `fixed`; no two columns are named alike.

    It is the escaped name of the class. A class with the name of an earlier column becomes, for example,
    `label (class)`, or `label (class 2)` if that is taken.
    """
    taken, columns = {*fixed}, []
    named = {for_cell(name) for name in classes}
    for name in classes:
        column, number = for_cell(name), 1
        while column in taken or (number > 1 and column in named):
            column = for_cell(f"{name} (class)" if number == 1 else f"{name} (class {number})")
            number += 1
        taken.add(column)
        columns.append(column)
    return columns
