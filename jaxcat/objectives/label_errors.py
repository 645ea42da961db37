"""Which labels look wrong, by confident learning (Northcutt, Jiang and Chuang, arXiv:1911.00068).

Probabilities must come from fits that left the record out: else the head has learned the wrong label.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# A listed label is less probable than the suggested one by this factor: of two classes it has less than 0.2. Chance
# alone, where classes cannot be told apart, gives probabilities close to the classes' shares.
FACTOR = 4.0


class Suspects(NamedTuple):
    """Labels by how wrong they look.

    Attributes:
        order: int (N,), numbers of the records, the most suspicious first.
        margins: (N,), the given class's probability minus the largest of another class, by number of record.
        suggested: int (N,), the most probable class other than the given one, by number of record.
        confident: bool (N,), whether a label is listed as probably wrong, by number of record.
        joint: int (K, K): how many records of a given class (row) are confidently of a class (column).
    """

    order: np.ndarray
    margins: np.ndarray
    suggested: np.ndarray
    confident: np.ndarray
    joint: np.ndarray


def suspects(probabilities: np.ndarray, labels: np.ndarray) -> Suspects:
    """Ranks labels by margin, and lists those that confident learning and `FACTOR` call wrong.

    A record is confidently of class j if j is its most probable class among those whose probability reaches the mean
    probability of class j over the records labelled j.

    Args:
        probabilities: (N, K), of each record from a fit without it.
        labels: int (N,), the given classes.
    """
    count, classes = probabilities.shape
    rows = np.arange(count)
    own = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    suggested = others.argmax(axis=1)
    margins = own - others[rows, suggested]
    sizes = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, own, minlength=classes) / np.maximum(sizes, 1)
    thresholds[sizes == 0] = np.inf
    reached = np.where(probabilities >= thresholds, probabilities, -np.inf)
    of_class = np.where(np.isfinite(reached).any(axis=1), reached.argmax(axis=1), -1)
    joint = np.zeros((classes, classes), np.int64)
    counted = of_class >= 0
    np.add.at(joint, (labels[counted], of_class[counted]), 1)
    wrong = counted & (of_class != labels) & (probabilities[rows, of_class] > FACTOR * own)
    suggested = np.where(wrong, of_class, suggested)
    return Suspects(np.argsort(margins, kind="stable"), margins, suggested, wrong, joint)


def flipped(labels: np.ndarray, *, share: float, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share was changed to another class at random, and the sorted numbers of the changed ones."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(labels), max(1, round(share * len(labels))), replace=False))
    changed = labels.copy()
    changed[chosen] = (labels[chosen] + random.integers(1, classes, len(chosen))) % classes
    return changed, chosen


def found_among(order: np.ndarray, planted: np.ndarray, first: int) -> float:
    """The share of the planted records that are among the first so many of an order."""
    return float(np.isin(planted, order[:first]).mean())
