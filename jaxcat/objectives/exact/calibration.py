"""Probabilities from scores: softmax (sigmoid) of slope × score, plus an offset per class where that is better.

Fitted to the leave-one-out scores by minimising the log loss against smoothed targets (J. Platt, Probabilistic outputs
for support vector machines, 1999): the own class (n + 1) / (n + 2), with n its records, and the other classes an equal
share of the rest. So separable scores have a finite slope. (One record more for each of K classes, (n + 1) / (n + K),
would ask for a confidence of 0.55 with ten records of each of ten classes.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax

from jaxcat.objectives.exact.parts import Groups
from jaxcat.objectives.exact.stratified import folds

IMBALANCED = 1.5  # largest class / smallest class from which on offsets are tried
FOLDS = 5  # of the comparison of calibrations with and without offsets
BLOCK_VALUES = 2**22  # scores at a time
STEPS = 100  # of Newton's method at most; it takes about 8


class Calibration(NamedTuple):
    """How scores become logits: slope × score + offsets.

    Attributes:
        slope: 0 or more; 0: no positive slope fits, and the offsets are the logits of the class frequencies.
        offsets: (outputs,), or None: all 0.
    """

    slope: float
    offsets: np.ndarray | None

    def logits(self, scores: np.ndarray) -> np.ndarray:
        return self.slope * scores + (0.0 if self.offsets is None else self.offsets)


class _Problem(NamedTuple):
    """Scores of all K classes (N, K), labels (N,), weights (N,)."""

    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def some(self, chosen: np.ndarray) -> _Problem:
        return _Problem(self.scores[chosen], self.labels[chosen], self.weights[chosen])


def calibrate(
    scores: np.ndarray, labels: np.ndarray, *, classes: int, weights: np.ndarray, groups: Groups, seed: int
) -> Calibration:
    """The calibration of leave-one-out scores, (N, outputs), with one output for two classes.

    Args:
        labels: int (N,).
        weights: (N,) weight of each record in the log loss.
        groups: which records are in one fold when calibrations with and without offsets are compared.
    """
    size = float(np.sqrt(np.mean(scores**2)))
    if size > 0:
        problem = _Problem(_of_classes(scores / size), labels, weights)
        slope, offsets = fit(*problem, with_offsets=False)
        counts = np.bincount(labels, minlength=classes)
        if counts.max() >= IMBALANCED * counts.min() and _offsets_help(problem, groups, seed):
            slope, offsets = fit(*problem, with_offsets=True)
        if slope > 0:
            found = None if not offsets.any() else offsets if scores.shape[1] > 1 else offsets[1:] - offsets[:1]
            return Calibration(slope / size, found)
    return Calibration(0.0, frequencies(labels, classes=classes, weights=weights))


def frequencies(labels: np.ndarray, *, classes: int, weights: np.ndarray) -> np.ndarray:
    """(outputs,): the logits of the weighted class frequencies; a class without a record counts as half a record."""
    sums = np.bincount(labels, weights, minlength=classes)
    logs = np.log(np.where(sums > 0, sums, 0.5 * weights.mean()) / weights.sum())
    return logs[1:] - logs[:1] if classes == 2 else logs


def fit(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, *, with_offsets: bool) -> tuple[float, np.ndarray]:
    """Slope ≥ 0 and offsets (K,), whose sum is 0, of the least weighted log loss against smoothed targets.

    Newton's method on a convex function, of which a step that does not lower it is halved.

    Args:
        scores: (N, K); of size about 1.
    """
    problem, classes = _Problem(scores, labels, weights), scores.shape[1]
    values = _minimum(problem, slice(0, 1 + classes if with_offsets else 1))
    if values[0] <= 0:
        values = _minimum(problem, slice(1, 1 + classes)) if with_offsets else np.zeros(1 + classes)
    return float(values[0]), values[1:] - values[1:].mean()


def _minimum(problem: _Problem, free: slice) -> np.ndarray:
    """Slope and offsets (1 + K,) of the least loss, of which those that are not `free` are 0."""
    values = np.zeros(1 + problem.scores.shape[1])
    loss, gradient, curvature = _derivatives(problem, values)
    for _ in range(STEPS):
        step = np.zeros_like(values)
        ridge = 1e-12 * max(1.0, np.trace(curvature)) * np.eye(len(values))
        step[free] = -np.linalg.solve((curvature + ridge)[free, free], gradient[free])
        descent = float(gradient[free] @ step[free])
        if -descent <= 1e-14 * problem.weights.sum():
            break
        size = 1.0
        while size > 1e-10 and _loss(problem, values + size * step) > loss + 1e-4 * size * descent:
            size /= 2
        values = values + size * step
        loss, gradient, curvature = _derivatives(problem, values)
    return values


def _offsets_help(problem: _Problem, groups: Groups, seed: int) -> bool:
    """Whether the log loss of records is lower with offsets, each fitted without the record's fold."""
    if groups.count < 2:
        return False
    number = min(FOLDS, groups.count)
    fold = folds(problem.labels, groups, number=number, seed=seed)
    losses = np.zeros(2)
    for out in range(number):
        rest, held = problem.some(fold != out), problem.some(fold == out)
        if not len(rest.labels) or not len(held.labels):
            continue
        for i, with_offsets in enumerate((False, True)):
            slope, offsets = fit(*rest, with_offsets=with_offsets)
            logits = slope * held.scores + offsets
            own = np.take_along_axis(logits, held.labels[:, None], axis=1)[:, 0]
            losses[i] += held.weights @ (logsumexp(logits, axis=1) - own)
    return bool(losses[1] < losses[0])


def _of_classes(scores: np.ndarray) -> np.ndarray:
    """Scores of all classes; one score s is -s / 2 and s / 2 of two, whose softmax is its sigmoid."""
    return scores if scores.shape[1] > 1 else np.hstack([-scores / 2, scores / 2])


def _blocks(problem: _Problem, values: np.ndarray):
    """Yields scores, smoothed targets, weights and logits of some records."""
    classes = problem.scores.shape[1]
    counts = np.bincount(problem.labels, minlength=classes)
    size = max(1, BLOCK_VALUES // classes)
    for start in range(0, len(problem.labels), size):
        scores, labels, weights = problem.some(np.arange(start, min(start + size, len(problem.labels))))
        rest = 1 / (counts[labels] + 2)
        targets = np.repeat(rest[:, None] / (classes - 1), classes, axis=1)
        np.put_along_axis(targets, labels[:, None], 1 - rest[:, None], axis=1)
        yield scores, targets, weights, values[0] * scores + values[1:]


def _loss(problem: _Problem, values: np.ndarray) -> float:
    return sum(
        float(weights @ (logsumexp(logits, axis=1) - (targets * logits).sum(axis=1)))
        for _, targets, weights, logits in _blocks(problem, values)
    )


def _derivatives(problem: _Problem, values: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradient (1 + K,) and curvature (1 + K, 1 + K) at slope and offsets `values`.

    A constant added to all offsets changes nothing; the curvature in that direction is made 1 and the gradient is 0.
    """
    classes, loss = problem.scores.shape[1], 0.0
    gradient, curvature = np.zeros(1 + classes), np.zeros((1 + classes, 1 + classes))
    for scores, targets, weights, logits in _blocks(problem, values):
        loss += float(weights @ (logsumexp(logits, axis=1) - (targets * logits).sum(axis=1)))
        chances = softmax(logits, axis=1)
        wrong, weighted = weights[:, None] * (chances - targets), weights[:, None] * chances
        gradient[0] += (wrong * scores).sum()
        gradient[1:] += wrong.sum(axis=0)
        from_mean = scores - (chances * scores).sum(axis=1, keepdims=True)
        curvature[0, 0] += (weighted * from_mean**2).sum()
        curvature[0, 1:] += (weighted * from_mean).sum(axis=0)
        curvature[1:, 1:] += np.diag(weighted.sum(axis=0)) - weighted.T @ chances
    curvature[1:, 0] = curvature[0, 1:]
    curvature[1:, 1:] += 1.0
    return loss, gradient, curvature
