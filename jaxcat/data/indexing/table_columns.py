"""Which columns of a table are used: those that settings name, or those of usual names."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from jaxcat.data.indexing.rules import RULES
from jaxcat.data.indexing.split_names import split_name
from jaxcat.data.records import SPLITS
from jaxcat.errors import ConfigError, DataError
from jaxcat.escaping import for_shell
from jaxcat.wording import first_few, printable

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
_YES_OR_NO = frozenset({"", "0", "1", "0.0", "1.0", "true", "false", "yes", "no", "y", "n", "t", "f"})
_NEGATIVE = frozenset(
    {"not", "no", "non", "without", "excluded", "exclude", "unused", "ignore", "ignored", "skip", "never"}
)
MOST_SPLIT_NAMES = 10  # a column with more different cells does not name splits


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


def choose_columns(header: Sequence[str], wanted: Mapping[str, str], *, where: str) -> tuple[dict[str, str], list[str]]:
    """The name of each column that is used, and the keys of those found by a usual name; see `read_table`."""
    columns, found = {}, []
    for key in USUAL:
        asked = wanted.get(key, "")
        names = candidates(key, header, asked)
        if asked == WITHOUT and WITHOUT not in header and key not in NEEDED:
            continue
        flag = f"--config.data.{key}_column"
        if not names and (asked or key in NEEDED):
            raise ConfigError(_no_column(key, header, asked, where=where))
        if len(names) > 1:
            optional = "" if key in NEEDED else f", or {flag}={WITHOUT} to use none of them"
            way = _of_evaluate(key) if where.startswith("--data ") else f"name it with {flag}=NAME{optional}"
            raise ConfigError(f"{where}: {' and '.join(map(repr, names))} may each be the column of {key}s: {way}")
        for name in names:
            if Counter(header)[name] > 1:
                raise DataError(f"{where}: several columns are called {name!r}; keep one")
            columns[key] = name
            if not asked:
                found.append(key)
    return columns, found


def split_of_cell(cell: str, *, alone: bool = False) -> str:
    """The split that a cell names, in the words that folders may have; "" if it names none.

    With `alone`, other words beside it, as in PublicTest, are not allowed; words that mean the opposite never are.
    """
    name = split_name(cell.strip())
    if name is None or name.split not in SPLITS or (name.rest and (alone or _NEGATIVE.intersection(name.rest))):
        return ""
    return name.split


def refuse_unused_splits(
    unused: Mapping[str, Collection[str]],
    columns: Mapping[str, str],
    wanted: Mapping[str, str],
    *,
    where: str,
    rules: int,
) -> None:
    """Raises ConfigError if a column that is not used says which split a row belongs to: train and test would be mixed.

    Its cells say so or, by stricter `rules`, its name, such as is_valid, if the cells are like True and False.
    """
    if "split" in columns or wanted.get("split", "") == WITHOUT:
        return
    stricter = RULES[rules].stricter
    for name, values in unused.items():
        splits = {split_of_cell(value, alone=not stricter) for value in values}
        if stricter and len(values) > 1 and _YES_OR_NO.issuperset(map(str.lower, values)) and _is_split(name):
            raise ConfigError(
                f"{where}: column {printable(name)!r} seems to say which rows are of a split: write train, validation "
                "or test into its cells and name it with --config.data.split_column="
                f"{for_shell(printable(name))}, or use no column with --config.data.split_column={WITHOUT}"
            )
        if len(splits) > 1 and "" not in splits:
            raise ConfigError(
                f"{where}: column {printable(name)!r} seems to say which split a row belongs to "
                f"({', '.join(sorted(map(printable, values)))}): name it with --config.data.split_column="
                f"{for_shell(printable(name))}, or use no column with --config.data.split_column={WITHOUT}"
            )


def _is_split(column: str) -> bool:
    """Whether a column's name asks yes or no of a split, such as is_valid, isTest or train."""
    name = split_name(column)
    return name is not None and name.split in SPLITS and name.rest in ((), ("is",), ("in",), ("for",), ("use",))


def candidates(key: str, header: Sequence[str], asked: str) -> list[str]:
    """The columns that may be the one of this key: the one asked for, else those of a usual name."""
    if asked:
        return [asked] if asked in header else []
    return [name for name in dict.fromkeys(header) if _simple(name) in USUAL[key]]


def _simple(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", unicodedata.normalize("NFKC", name).strip().lower())


def _of_evaluate(key: str) -> str:
    """What to do about the columns of a table that evaluate measures, which has no settings."""
    return f"call the column {USUAL[key][0]!r} in the table, and no other by such a name"


def _no_column(key: str, header: Sequence[str], asked: str, *, where: str) -> str:
    """What is wrong with a header that lacks a column."""
    shown = first_few([printable(name)[:40] for name in header], 8)
    near = difflib.get_close_matches(asked, header, n=1) if asked else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if not asked:
        named = f"name it with --config.data.{key}_column=NAME"
        hint = f"; {_of_evaluate(key) if where.startswith('--data ') else named}"
        if any(re.search(r"\.[A-Za-z0-9]{2,5}( \S+)?$", name) for name in header):
            commas = ", and commas between the cells" if len(header) == 1 else ""
            hint = f"; that looks like a record: put a line with names above it, such as path,label{commas}"
    what = f"no column {asked!r}" if asked else f"no column of {key}s by a usual name ({', '.join(USUAL[key][:4])} …)"
    return f"{where}: {what}; its first line is: {shown}{hint}"
