"""Intervals of measured figures."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from jaxcat.objectives.bootstrap import DRAWS, drawn_sums

LEVEL = 0.95
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)  # quantiles


def accuracy_interval(correct: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of an accuracy, low and high.

    Wilson's interval for independent records. Where records of a group go together, the percentile interval of a
    bootstrap that draws groups, but never narrower than Wilson's: if all answers are right, every draw is.

    Args:
        correct: bool (N,), whether each answer was right; without a record the interval is 0 to 1.
        groups: int (N,), equal for records of one group; None: each record alone.
        seed: seed of the bootstrap.
    """
    correct = np.asarray(correct, bool)
    if not len(correct):
        return 0.0, 1.0
    low, high = _wilson(int(correct.sum()), len(correct))
    if groups is None:
        return low, high
    _, of_record = np.unique(groups, return_inverse=True)
    sizes, right = np.bincount(of_record), np.bincount(of_record, correct)
    if sizes.max() == 1:
        return low, high
    # Groups of the same size with as many right answers are drawn together: much fewer numbers, the same distribution.
    (sizes, right), alike = np.unique(np.stack([sizes, right.astype(sizes.dtype)]), axis=1, return_counts=True)
    times = np.random.default_rng(seed).multinomial(alike.sum(), alike / alike.sum(), size=DRAWS)
    edges = np.quantile((times @ right) / (times @ sizes), ENDS)
    return min(low, float(edges[0])), max(high, float(edges[1]))


def _wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval (J. Am. Stat. Assoc. 22, 1927), as scipy.stats has it; importing that takes 0.4 s."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt((share * (1 - share) + spread / 4) * spread) / (1 + spread)
    return 0.0 if right == 0 else middle - half, 1.0 if right == count else middle + half


class ClassIntervals(NamedTuple):
    """95 % intervals of the figures of every class, float64 (K, 2) each, low and high.

    A figure that is not defined, such as the precision of a class that is never the answer, has 0 to 1.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def class_intervals(
    predicted: np.ndarray, labels: np.ndarray, *, classes: int, groups: np.ndarray | None = None, seed: int = 0
) -> ClassIntervals:
    """Intervals of precision, recall and F1 of every class.

    Wilson's for independent records. F1 is 2j / (1 + j), where j is the share of right ones among the records that are
    of the class or are called so: its interval is that of j, as F1 rises with j. Where records of a group go together,
    the percentile interval of a bootstrap that draws groups, but never narrower than Wilson's.

    Args:
        predicted, labels: int (N,).
        classes: their number K.
        groups: int (N,), equal for records of one group; None: each record alone.
        seed: seed of the bootstrap.
    """
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    called, support = (np.bincount(each, minlength=classes) for each in (predicted, labels))
    denominators = (called, support, called + support - hits)
    found = [
        np.array([_wilson(int(k), int(n)) if n else (0.0, 1.0) for k, n in zip(hits, of, strict=True)])
        for of in denominators
    ]
    if groups is not None and len(labels) and len(np.unique(groups)) < len(labels):
        drawn = _drawn(predicted, labels, classes=classes, groups=groups, seed=seed)
        for intervals, draws in zip(found, drawn, strict=True):
            intervals[:, 0] = np.fmin(intervals[:, 0], draws[0])
            intervals[:, 1] = np.fmax(intervals[:, 1], draws[1])
    precision, recall, joint = found
    return ClassIntervals(precision, recall, 2 * joint / (1 + joint))


def _drawn(
    predicted: np.ndarray, labels: np.ndarray, *, classes: int, groups: np.ndarray, seed: int
) -> list[np.ndarray]:
    """Quantiles (2, K) of the three shares over draws of groups; NaN where no draw defines them."""
    from scipy.sparse import csr_array

    count = len(labels)
    rows = np.arange(count)
    right = np.flatnonzero(predicted == labels)
    records = np.concatenate([right, rows, rows])
    columns = np.concatenate([labels[right], classes + predicted, 2 * classes + labels])
    counted = csr_array((np.ones(len(records)), (records, columns)), shape=(count, 3 * classes))
    sums = drawn_sums(counted, groups, seed=seed)
    hits, called, support = np.split(sums, 3, axis=1)
    found = []
    for of in (called, support, called + support - hits):
        shares = np.where(of > 0, hits / np.maximum(of, 1), np.nan)
        known = ~np.isnan(shares).all(axis=0)
        ends = np.full((2, classes), np.nan)
        ends[:, known] = np.nanquantile(shares[:, known], ENDS, axis=0)
        found.append(ends)
    return found
