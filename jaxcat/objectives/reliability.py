"""How far the confidence of a classifier is from its accuracy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcat.objectives.bootstrap import drawn_sums
from jaxcat.objectives.intervals import ENDS, accuracy_interval

BINS = 15  # equal widths, as Guo et al. (arXiv:1706.04599)


class Reliability(NamedTuple):
    """A reliability diagram and its one figure.

    Attributes:
        edges: float64 (16,), of the bins of confidence.
        counts: int (15,), records of each bin.
        confidence, accuracy: (15,), means of each bin; NaN without a record.
        intervals: (15, 2), 95 % of each bin's accuracy; NaN without a record.
        error: expected calibration error.
        interval: its 95 % interval, low and high.
        by_chance: the mean error that so many records would show if the confidence were exactly right: never 0.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    intervals: np.ndarray
    error: float
    interval: tuple[float, float]
    by_chance: float


def bins_of(confidence: np.ndarray) -> np.ndarray:
    """int (N,): the bin of each confidence; the last one has 1."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: |accuracy - confidence| of each bin, weighted by its share of the records.

    Args:
        confidence: (N,), the probability of each answer.
        correct: bool (N,).
    """
    bins = bins_of(confidence)
    gaps = [abs(correct[bins == b].sum() - confidence[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(confidence))


def reliability(
    confidence: np.ndarray, correct: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0
) -> Reliability:
    """The diagram of N > 0 answers, and the calibration error with its interval.

    The interval is a basic bootstrap over records or groups: the error of drawn records exceeds that of all records by
    about as much as the latter exceeds the true one. It begins at 0 if chance alone explains the error, and includes
    the error itself.

    Args:
        confidence: (N,), the probability of each answer.
        correct: bool (N,).
        groups: int (N,), equal for records of one group; None: each record alone.
        seed: of the draws.
    """
    bins, correct = bins_of(confidence), np.asarray(correct, bool)
    count = np.bincount(bins, minlength=BINS)
    known = np.maximum(count, 1)
    means = [np.where(count > 0, np.bincount(bins, of, BINS) / known, np.nan) for of in (confidence, correct)]
    intervals = np.full((BINS, 2), np.nan)
    for b in np.flatnonzero(count):
        of_bin = bins == b
        intervals[b] = accuracy_interval(correct[of_bin], None if groups is None else groups[of_bin], seed=seed)
    error = calibration_error(confidence, correct)
    gaps = np.zeros((len(bins), BINS + 1))
    gaps[np.arange(len(bins)), bins] = correct - confidence
    gaps[:, BINS] = 1
    sums = drawn_sums(gaps, groups, seed=seed)
    drawn = sums[:, :BINS] / sums[:, BINS:]
    low, high = 2 * error - np.quantile(np.abs(drawn).sum(axis=1), ENDS[::-1])
    chance = np.abs(drawn - gaps[:, :BINS].mean(axis=0)).sum(axis=1)  # as if no bin had a gap
    if error <= np.quantile(chance, ENDS[1]):
        low = 0.0
    return Reliability(
        edges=np.linspace(0, 1, BINS + 1),
        counts=count,
        confidence=means[0],
        accuracy=means[1],
        intervals=intervals,
        error=error,
        interval=(max(0.0, min(float(low), error)), min(1.0, max(float(high), error))),
        by_chance=float(chance.mean()),
    )
