"""Corrections: a table of images with the labels that a person gave them, added to train (`data.corrections`).

The local page of `jaxcat.serve` writes such a table; any table of paths and labels does. Its columns have their usual
names, and paths are relative to the table. The division into train and validation comes first, so corrections never
change what is measured.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcat.data.images.decoding import decode, decoding_of
from jaxcat.data.indexing.listed import Problems, clean
from jaxcat.data.indexing.table_columns import WITHOUT
from jaxcat.data.indexing.table_reading import read_table
from jaxcat.data.indexing.table_source import locate
from jaxcat.data.pixel_groups import pixels_of
from jaxcat.data.records import Data, Split, digest_of
from jaxcat.errors import DataError, JaxcatError
from jaxcat.system.console import Console
from jaxcat.wording import counted, first_few, printable

logger = logging.getLogger(__name__)

SETTING = "data.corrections"
# The table's own columns are found by their usual names, whatever the settings say of another table.
_COLUMNS = {"path": "", "label": "", "split": WITHOUT, "group": ""}


class Correction(NamedTuple):
    """One row of the table.

    Attributes:
        place: such as "line 3"; for messages.
        name: of the record; no image of a data set has such a name.
        path: of the image.
        label: the class, as the table has it.
        group: "" if the table has no groups.
    """

    place: str
    name: str
    path: Path
    label: str
    group: str = ""


def corrected(data: Data, config: Any) -> Data:
    """The data with the rows of `config.data.corrections` in train; as they are if it is empty.

    A row with the pixels of an image of train replaces its label there. One with the pixels of an image of validation
    or test, or of a group that has images there, is left out with a warning. Other rows are added at the end of train.
    Pixels, not bytes, are compared: a browser pastes a photograph as a PNG, and saving it again changes its file.

    Raises:
        DataError: the table cannot be used, a label is none of the classes, an image has two labels, or a class has no
            image of train left.
    """
    if not config.data.corrections:
        return data
    rows, data = _rows(config, data), data.decoded(decoding_of(config))
    train = data.splits["train"]
    known = {name: _same_pixels(split, rows) for name, split in data.splits.items()}
    measured = [name for name in data.splits if name != "train"]
    groups = {group for name in measured for group in data.splits[name].groups or ()}
    labels, added, left_out = np.array(train.labels, np.int32), [], []
    for pixels, row in rows.items():
        label = data.classes.index(row.label)
        if any(pixels in known[name] for name in measured) or (row.group and row.group in groups):
            left_out.append(row.place)
        elif pixels in known["train"]:
            labels[known["train"][pixels]] = label
        else:
            added.append(row)
    if left_out:
        logger.warning(
            "%s: %s of validation or test %s left out, because accuracy is measured there: %s",
            *(
                where(config),
                counted(len(left_out), "image"),
                "is" if len(left_out) == 1 else "are",
                first_few(left_out),
            ),
        )
    changed = _joined(dataclasses.replace(train, labels=labels), added, classes=data.classes)
    if lost := set(range(len(data.classes))) - set(changed.labels.tolist()):
        raise DataError(
            f"{where(config)}: no image of train is left of class {data.classes[min(lost)]!r}; add images of it, or "
            "leave the class out with --config.data.classes"
        )
    return dataclasses.replace(data, splits={**data.splits, "train": changed})


def corrected_images(config: Any) -> dict[str, Path]:
    """Name of a record → its file, of every row of the table; none if there is no table, or it cannot be used."""
    if not config.data.corrections:
        return {}
    try:
        return {row.name: row.path for row in rows_of(config)}
    except JaxcatError as error:
        logger.warning("%s: images of this table cannot be found", error)
        return {}


def where(config: Any) -> str:
    """What the table is called in messages: the setting that names it."""
    return f"--config.{SETTING}={printable(config.data.corrections)}"


def rows_of(config: Any) -> list[Correction]:
    """The rows of the table, unchanged. Raises DataError or ConfigError; the message names lines."""
    text = where(config)
    path = Path(config.data.corrections).expanduser().absolute()
    table = read_table(path, _COLUMNS, where=text)
    problems, rows = Problems(text), []
    groups = table.cells.get("group", [""] * len(table.lines))
    for line, cell, label, group in zip(table.lines, table.cells["path"], table.cells["label"], groups, strict=True):
        place = f"{table.row_word} {line}"
        name, file, problem = locate(path.parent, cell, encoding=table.encoding)
        if problem:
            problems.add(problem, place, cell)
        else:
            rows.append(Correction(place, f"{path.name}:{name}", file, label, clean(group)))
    problems.refuse()
    return rows


def _rows(config: Any, data: Data) -> dict[bytes, Correction]:
    """The rows by the digest of their pixels, each image once, with labels as the classes are called."""
    problems = Problems(where(config))
    rows: dict[bytes, Correction] = {}
    named = set(data.splits["train"].files)
    for row in rows_of(config):
        label = row.label if row.label in data.classes else clean(row.label)
        if label not in data.classes:
            problems.add("a label that is none of the classes", row.place, row.label)
            continue
        if row.name in named:
            problems.add("a name that train has too", row.place, row.name)
            continue
        try:
            pixels = digest_of(decode(row.path, row.name, decoding_of(config)))
        except DataError as error:
            problems.add("an image that cannot be read", row.place, str(error))
            continue
        before = rows.setdefault(pixels, row._replace(label=label))
        if before.label != label:
            problems.add(f"an image that has another label in {before.place}", row.place, row.label)
    problems.refuse(f"\nthe classes are {', '.join(map(printable, data.classes))}")
    return rows


def _same_pixels(split: Split, rows: Mapping[bytes, Correction]) -> dict[bytes, list[int]]:
    """Digest of a correction's pixels → the records of a split that are the same image."""
    found: dict[bytes, list[int]] = {}
    for index, pixels in enumerate(pixels_of(split, console=Console(stderr=True)) if rows else ()):
        if pixels is not None and pixels in rows:
            found.setdefault(pixels, []).append(index)
    return found


def _joined(train: Split, rows: list[Correction], *, classes: tuple[str, ...]) -> Split:
    """Train with these rows after its records. If train has groups, a row without one is a group of its own."""
    if not rows:
        return train
    count, stored = len(train), train.stored
    paths = [row.path for row in rows]
    groups = train.groups
    if groups is not None or any(row.group for row in rows):
        own = groups if groups is not None else train.files
        groups = (*own, *(row.group or row.name for row in rows))
    labels = np.array([classes.index(row.label) for row in rows], np.int32)
    return dataclasses.replace(
        train,
        files=(*train.files, *(row.name for row in rows)),
        labels=np.concatenate([train.labels, labels]),
        stored=lambda index: stored(index) if index < count else paths[index - count],
        groups=groups,
    )
