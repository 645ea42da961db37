"""Intervals of measured figures."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
DRAWS = 2000  # of groups, for the bootstrap


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
    edges = np.quantile((times @ right) / (times @ sizes), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(low, float(edges[0])), max(high, float(edges[1]))


def _wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval (J. Am. Stat. Assoc. 22, 1927), as scipy.stats has it; importing that takes 0.4 s."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt((share * (1 - share) + spread / 4) * spread) / (1 + spread)
    return 0.0 if right == 0 else middle - half, 1.0 if right == count else middle + half
