"""The accuracy of the best of many candidates, with an interval that includes the choice among them.

Bootstrap bias-corrected cross-validation (BBC-CV: Tsamardinos, Greasidou and Borboudakis, Machine Learning 107, 2018),
on leave-one-out results: records are drawn again with replacement, groups whole; the candidate with the least squared
error on the drawn ones is chosen and measured on those not drawn. Nothing is solved again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcat.objectives.intervals import LEVEL, accuracy_interval

DRAWS = 1000
TOGETHER = 100  # draws whose matrices are in memory at a time


class ChosenAccuracy(NamedTuple):
    """The accuracy to expect of what was chosen.

    Attributes:
        accuracy: the leave-one-out accuracy of the winner minus `optimism`.
        low, high: the 95 % interval.
        optimism: how much higher the accuracy of a choice is on the records that it was made on: the mean over draws,
            per record, at least 0.
        chosen: (candidates,), the share of draws that chose each.
    """

    accuracy: float
    low: float
    high: float
    optimism: float
    chosen: np.ndarray


def accuracy_of_choice(
    squared: np.ndarray, right: np.ndarray, winner: int, *, groups: np.ndarray | None = None, seed: int = 0
) -> ChosenAccuracy:
    """The accuracy of the candidate `winner`, which was chosen for its least sum of `squared`.

    Args:
        squared: float32 (C, N), the squared error of each candidate for each record.
        right: bool (C, N), whether its answer was right.
        winner: number of the candidate that all records choose.
        groups: int (N,), equal for records that are drawn together; None: each alone.
        seed: of the draws.
    """
    count = squared.shape[1]
    _, of_record = np.unique(np.arange(count) if groups is None else groups, return_inverse=True)
    together, random = int(of_record.max()) + 1, np.random.default_rng(seed)
    hits = right.astype(np.float32)
    differences, outside = [], []
    chosen = np.zeros(len(squared))
    for start in range(0, DRAWS, TOGETHER):
        of_groups = random.multinomial(together, np.full(together, 1 / together), size=min(TOGETHER, DRAWS - start))
        times = of_groups[:, of_record].astype(np.float32)
        best = (times @ squared.T).argmin(axis=1)
        inside = np.einsum("bn,bn->b", times, hits[best]) / times.sum(axis=1)
        rest = (times == 0).astype(np.float32)
        judged = rest.sum(axis=1)
        usable = judged > 0
        apart = np.einsum("bn,bn->b", rest, hits[best])[usable] / judged[usable]
        differences.append(inside[usable] - apart)
        outside.append(apart)
        chosen += np.bincount(best, minlength=len(squared))
    measured = float(right[winner].mean())
    optimism = max(0.0, float(np.concatenate(differences).mean())) if together > 1 else 0.0
    low, high = _interval(right[winner], groups, np.concatenate(outside), optimism)
    accuracy = max(0.0, measured - optimism)
    return ChosenAccuracy(accuracy, min(low, accuracy), max(high, accuracy), optimism, chosen / chosen.sum())


def _interval(hits: np.ndarray, groups: np.ndarray | None, outside: np.ndarray, optimism: float) -> tuple[float, float]:
    """Percentiles of the accuracies outside; never narrower than one candidate's interval minus the optimism."""
    low, high = accuracy_interval(hits, groups)
    low, high = max(0.0, low - optimism), high - optimism
    if len(outside):
        edges = np.quantile(outside, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low, high = min(low, float(edges[0])), max(high, float(edges[1]))
    return low, high
