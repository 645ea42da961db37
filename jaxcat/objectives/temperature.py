"""The temperature that corrects the confidence of a trained head (Guo et al., arXiv:1706.04599).

Logits are divided by it. Above 1, it makes a head less sure. Answers stay the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcat.objectives.exact.parts import Groups
from jaxcat.objectives.exact.stratified import folds as folds_of
from jaxcat.objectives.reliability import calibration_error

LOWEST, HIGHEST = 1 / 20, 20.0  # temperatures; a fit at an end says that no temperature fits
FOLDS = 5

# SciPy is imported where it is needed, which takes 0.2 s: `predict --calibrated` reads only the two ends from here.


class Temperature(NamedTuple):
    """A fitted temperature and what it changes.

    Attributes:
        temperature: fitted to all records.
        of_folds: (folds,), fitted without the records of each fold.
        loss_before, loss_after: mean log loss in nats, without it and with that of the other folds.
        error_before, error_after: expected calibration error, likewise.
        found: whether there is a best temperature between the ends. There is none if every answer is right, or if the
            logits say nothing about the labels.
    """

    temperature: float
    of_folds: tuple[float, ...]
    loss_before: float
    loss_after: float
    error_before: float
    error_after: float
    found: bool


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0
) -> Temperature:
    """Fits the temperature by log loss, to all records and without each fold.

    Args:
        logits: (N, outputs); one output is the logit of the second of two classes. Log-probabilities serve as logits.
        labels: int (N,).
        groups: int (N,), equal for records that are in one fold; None: each record alone.
        seed: of the folds.
    """
    from scipy.special import log_softmax

    logits = np.asarray(logits, np.float64)
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    of_groups = Groups(groups, records=len(labels))
    fold = folds_of(labels, of_groups, number=min(FOLDS, of_groups.count), seed=seed)
    after, of_folds = log_softmax(logits, axis=1), []
    before = after.copy()
    for number in np.unique(fold) if of_groups.count > 1 else ():
        left_out = fold == number
        of_folds.append(_fitted(logits[~left_out], labels[~left_out]))
        after[left_out] = log_softmax(logits[left_out] / of_folds[-1], axis=1)
    temperature = _fitted(logits, labels)
    return Temperature(
        temperature,
        tuple(of_folds),
        *(log_loss(before, labels), log_loss(after, labels)),
        *(error_of(before, labels), error_of(after, labels)),
        found=bool((before.argmax(axis=1) != labels).any()) and 1.001 * LOWEST < temperature < HIGHEST / 1.001,
    )


def _fitted(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least log loss; the loss has one minimum, as it is convex in 1 / temperature."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(inverse: float) -> float:
        return log_loss(log_softmax(logits * inverse, axis=1), labels)

    # The logarithm of 1 / temperature: one minimum all the same, and as fine a search above 1 as below.
    found = minimize_scalar(
        lambda exponent: loss(np.exp(exponent)),
        bounds=(-np.log(HIGHEST), -np.log(LOWEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(-found.x))


def log_loss(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats, of (N, K) and int (N,)."""
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def error_of(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error of (N, K) log-probabilities, with labels int (N,)."""
    probabilities = np.exp(log_probabilities)
    return calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
