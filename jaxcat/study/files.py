"""The files of a study: study.json, and tables that other programs read."""

from __future__ import annotations

import csv
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.escaping import for_cell
from jaxcat.study.advice import command
from jaxcat.study.images import Image, probabilities_of
from jaxcat.study.results import Accuracy, Results
from jaxcat.system.files import replacing, write_text

VERSION = 1
MOST_IN_JSON = 50  # of labels and pairs; the CSV files have all


def write(path: Path, results: Results, *, request: dict[str, Any], summary: list[str]) -> None:
    """Writes ranges.csv, curve.csv, labels.csv, duplicates.csv, unusual.csv and, last, the JSON file `path`.

    In every table, a cell that a spreadsheet would run begins with an apostrophe; `data.source=table` undoes that.
    """
    workdir = path.parent
    _table(workdir / "ranges.csv", _ranges(results))
    _table(workdir / "curve.csv", _curve(results))
    _table(workdir / "labels.csv", _labels(results))
    _table(workdir / "duplicates.csv", _duplicates(results))
    _table(workdir / "unusual.csv", _unusual(results))
    content = to_json(results) | {"request": request, "command": command(workdir), "summary": summary}
    write_text(path, json.dumps(content, indent=1) + "\n")


def _table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as aside, open(aside, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        for row in rows:
            writer.writerow([for_cell(cell) if isinstance(cell, str) else _number(cell) for cell in row])


def _number(cell: Any) -> Any:
    return f"{cell:.6g}" if isinstance(cell, float) else "" if cell is None else cell


def _ranges(results: Results) -> Iterable[Sequence[Any]]:
    names = ("image_size", "first_block", "last_block", "pool", "features", "penalty", "squared_error", "accuracy")
    yield (*names, "low", "high", "records", "milliseconds", "on_front", "chosen")
    for row in results.rows:
        blocks, pool, columns = row.candidate.blocks, row.candidate.pool, row.candidate.columns
        figures = (row.penalty, row.squared_error, row.accuracy, row.low, row.high, row.records, row.milliseconds)
        yield (row.size, blocks[0], blocks[-1], pool, columns, *figures, row in results.front, row is results.winner)


def _curve(results: Results) -> Iterable[Sequence[Any]]:
    yield ("records", "accuracy", "low", "high", "subsets", "kind")
    for records, accuracy, subsets in results.curve.points:
        yield (records, accuracy, None, None, subsets, "measured")
    for each in results.curve.predictions:
        yield (each.size, each.accuracy, each.low, each.high, None, "predicted")


def _labels(results: Results) -> Iterable[Sequence[Any]]:
    """Every train image: those that look wrong, then the others by suspicion.

    `path` and `label` are what `data.source=table` reads.
    """
    split, classes, found = results.collected.splits["train"], results.collected.classes, results.suspects
    probabilities = probabilities_of(results.solution.leave_one_out)
    yield ("path", "label", "suggested", "probability_of_label", "probability_of_suggested", "looks_wrong")
    for i in sorted(found.order, key=lambda record: not found.confident[record]):  # keeps the order of suspicion
        label, suggested = int(split.labels[i]), int(found.suggested[i])
        chances = (float(probabilities[i, label]), float(probabilities[i, suggested]))
        yield (split.files[i], classes[label], classes[suggested], *chances, bool(found.confident[i]))


def _duplicates(results: Results) -> Iterable[Sequence[Any]]:
    yield ("path", "split", "label", "path_2", "split_2", "label_2", "cosine", "left_out_together")
    for pair in results.copies.pairs:
        yield (*_named(results, pair.first), *_named(results, pair.second), pair.cosine, pair.known)


def _unusual(results: Results) -> Iterable[Sequence[Any]]:
    yield ("path", "split", "label", "distance")
    for image, distance in results.copies.unusual:
        yield (*_named(results, image), distance)


def _named(results: Results, image: Image) -> tuple[str, str, str]:
    """File, split and class."""
    split = results.collected.splits[image.split]
    return split.files[image.number], image.split, results.collected.classes[split.labels[image.number]]


def to_json(results: Results) -> dict[str, Any]:
    """The content of study.json, without what was asked for."""
    splits, copies, found = results.collected.splits, results.copies, results.suspects
    listed = [int(i) for i in found.order if found.confident[i]]
    train, classes = splits["train"], results.collected.classes
    return {
        "version": VERSION,
        "jaxcat": importlib.metadata.version("jaxcat"),
        "classes": list(classes),
        "images": {name: len(split) for name, split in splits.items()},
        "groups": len(np.unique(results.collected.groups["train"])),
        "ranked_on": results.ranked_on,
        "winner": results.winner.to_json(),
        "accuracy": vars(results.accuracy) | {"optimism_of_choice": results.optimism},
        "validation": _accuracy(results.validation),
        "chance": results.chance,
        "learned": results.learned,
        "ranges": [row.to_json() for row in results.rows],
        "front": [row.to_json() for row in results.front],
        "learning_curve": results.curve.to_json(),
        "labels": {
            "look_wrong": len(listed),
            "first": [
                {"file": train.files[i], "label": classes[train.labels[i]], "suggested": classes[found.suggested[i]]}
                for i in listed[:MOST_IN_JSON]
            ],
        },
        "near_duplicates": {
            "pairs": len(copies.pairs),
            "across_splits": sum(pair.across for pair in copies.pairs),
            "two_labels": sum(pair.labels for pair in copies.pairs),
            "threshold": copies.threshold,
            "pairs_compared": copies.compared,
            "first": [
                {"files": [_named(results, each)[0] for each in (pair.first, pair.second)], "cosine": pair.cosine}
                for pair in copies.pairs[:MOST_IN_JSON]
            ],
        },
        "unusual": [{"file": _named(results, image)[0], "distance": far} for image, far in copies.unusual],
        "hardest": [each._asdict() for each in results.hardest],
        "notes": results.notes,
        "seconds": {name: round(seconds, 2) for name, seconds in results.seconds.items()},
    }


def _accuracy(found: Accuracy | None) -> dict[str, Any] | None:
    return None if found is None else dict(vars(found))
