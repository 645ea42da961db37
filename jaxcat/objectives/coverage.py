"""How accurate a classifier is if it may leave those images unanswered that it is least sure of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Coverage(NamedTuple):
    """Accuracy by the share of records that are answered, the surest first.

    Attributes:
        shares: float64 (N,), rising to 1.
        accuracies: (N,), of the answered records. Records of the same confidence have no order: each counts as their
            mean.
    """

    shares: np.ndarray
    accuracies: np.ndarray


class Refusal(NamedTuple):
    """What happens if a share of the records is refused.

    Attributes:
        refused, answered: numbers of records.
        accuracy: of those that are answered.
        threshold: the least confidence with which records are answered.
    """

    refused: int
    answered: int
    accuracy: float
    threshold: float


def by_coverage(confidence: np.ndarray, correct: np.ndarray) -> Coverage:
    """Accuracy of the surest 1, 2, …, N records; both (N,), N > 0, `correct` bool."""
    _, tie, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    right = (np.bincount(tie, correct) / sizes)[np.sort(tie)]
    answered = np.arange(1, len(confidence) + 1)
    return Coverage(answered / len(confidence), np.cumsum(right) / answered)


def refusing(confidence: np.ndarray, correct: np.ndarray, *, share: float) -> Refusal:
    """What refusing the least sure records brings: as many as possible, but at most `share` (below 1) of all.

    Records of the same confidence are refused together or not at all, as a threshold does.
    """
    order = np.sort(confidence)
    threshold = float(order[int(share * len(order) + 1e-9)])
    answered = confidence >= threshold
    return Refusal(int((~answered).sum()), int(answered.sum()), float(np.mean(correct[answered])), threshold)
