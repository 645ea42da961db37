"""Which classes are taken for which, with the images, and the figures of every class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxcat.data.records import printed_order
from jaxcat.objectives.intervals import class_intervals
from jaxcat.report.context import Context
from jaxcat.report.section import Section

WHOLE_MATRIX = 24  # classes; of more, the pairs that are confused are listed
MOST_IMAGES = 1500  # thumbnails, if not all fit: those of wrong answers first
FEW = 6  # classes whose names have room above the columns
PAGE = 20  # rows of a long table
SHADES = 5
OF_MATRIX = (
    "A row is the label, a column the answer: numbers on the diagonal are right answers, all others are mistakes. "
    "Choose a number to see its images."
)
OF_PAIRS = "Each row is a label and the other class that was the answer; the most frequent mistakes come first."


class Cell(NamedTuple):
    """One number of the matrix."""

    label: int
    answer: int
    images: int
    shade: int


class Pair(NamedTuple):
    """A label, a wrong answer, how often, and the share of the images of the label."""

    label: int
    answer: int
    images: int
    share: float


class Row(NamedTuple):
    """The figures of a class, each with the ends of its interval, and the class that it is most often taken for."""

    label: int
    images: int
    precision: tuple[float, float, float]
    recall: tuple[float, float, float]
    f1: tuple[float, float, float]
    other: int | None
    times: int


def section_of(context: Context) -> Section:
    """A matrix of few classes, or the pairs of many; and a table of all classes."""
    confusion = np.array(context.summary["confusion"])
    order = printed_order(context.classifier.classes)
    whole = len(order) <= WHOLE_MATRIX
    context.pictures.embed(_shown(context))
    values: dict[str, Any] = {
        "names": context.classes,
        "order": order,
        "upright": len(order) > FEW and max(map(len, context.classes)) > 3,
        "matrix": [[_cell(confusion, i, j) for j in order] for i in order] if whole else [],
        "pairs": list(_pairs(confusion)),
        "rows": list(_rows(context, confusion)),
        "page": PAGE,
    }
    return Section("confusion", "What is taken for what", OF_MATRIX if whole else OF_PAIRS, "confusion.html", values)


def _shown(context: Context) -> np.ndarray:
    """The records whose thumbnails are in the page: all of them if they are few, else the wrong and unsure ones."""
    if len(context) <= MOST_IMAGES:
        return np.arange(len(context))
    by_loss = np.argsort(-context.losses, kind="stable")
    wrong = by_loss[~context.correct[by_loss]][: MOST_IMAGES * 2 // 3]
    right = by_loss[context.correct[by_loss]]
    rank = np.empty(len(right), np.int64)  # of each record within its class, so that every class gets some
    for label in np.unique(context.labels[right]):
        of_class = np.flatnonzero(context.labels[right] == label)
        rank[of_class] = np.arange(len(of_class))
    fair = right[np.argsort(rank, kind="stable")]
    return np.concatenate([wrong, fair[: MOST_IMAGES - len(wrong)]])


def _cell(confusion: np.ndarray, label: int, answer: int) -> Cell:
    """A number with its shade, by its share of the images of the label; 0 is none."""
    count = int(confusion[label, answer])
    share = count / max(1, int(confusion[label].sum()))
    return Cell(label, answer, count, 0 if count == 0 else 1 + min(SHADES - 1, int(share**0.5 * SHADES)))


def _pairs(confusion: np.ndarray) -> Iterator[Pair]:
    """All mistakes, the most frequent first, then those of the greatest share."""
    mistakes = confusion * ~np.eye(len(confusion), dtype=bool)
    support = confusion.sum(axis=1)
    found = [
        Pair(int(i), int(j), int(mistakes[i, j]), float(mistakes[i, j] / support[i])) for i, j in np.argwhere(mistakes)
    ]
    yield from sorted(found, key=lambda pair: (-pair.images, -pair.share, pair.label, pair.answer))


def _rows(context: Context, confusion: np.ndarray) -> Iterator[Row]:
    """The classes that have images or answers, as tables show them; of many classes, the lowest F1 first."""
    summary, order = context.summary, printed_order(context.classifier.classes)
    found = class_intervals(
        context.predicted, context.labels, classes=len(order), groups=context.groups, seed=context.seed
    )
    per_class = [summary["per_class"][name] for name in context.classifier.classes]
    if len(order) > WHOLE_MATRIX:
        order = sorted(order, key=lambda label: (not per_class[label]["count"], per_class[label]["f1"]))
    for label in order:
        if not confusion[label].any() and not confusion[:, label].any():
            continue
        figures = per_class[label]
        mistakes = confusion[label].copy()
        mistakes[label] = 0
        times = int(mistakes.max())
        precision, recall, f1 = (
            (figures[name], float(ends[label][0]), float(ends[label][1]))
            for name, ends in (("precision", found.precision), ("recall", found.recall), ("f1", found.f1))
        )
        other = int(mistakes.argmax()) if times else None
        yield Row(label, figures["count"], precision, recall, f1, other, times)
