"""Probabilities from scores: softmax (sigmoid) of slope × score, plus an offset per class if that is better.

Fitted to the leave-one-out scores by minimising the log loss against smoothed targets (J. Platt, Probabilistic outputs
for support vector machines, 1999): the own class (n + 1) / (n + 2), with n its records, and the other classes an equal
share of the rest. So separable scores have a finite slope. (One record more for each of K classes, (n + 1) / (n + K),
would ask for a confidence of 0.55 with ten records of each of ten classes.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from jaxcat.objectives.exact.parts import Groups
from jaxcat.objectives.exact.problem import NOISE
from jaxcat.objectives.exact.stratified import folds

IMBALANCED = 1.5  # largest class / smallest class, by weight, from which on offsets are tried
FOLDS = 5  # of the comparison of calibrations with and without offsets
BLOCK_VALUES = 2**20  # scores at a time
STEPS = 100  # of Newton's method at most; it takes about 8
ENOUGH = 1e-7  # the last step is one that promises a smaller gain in loss per record; the rest is about its square


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

    Scores that differ between classes by rounding alone (`problem.NOISE`) have slope 0.

    Args:
        labels: int (N,).
        weights: (N,) weight of each record in the log loss.
        groups: which records are in one fold when calibrations with and without offsets are compared.
    """
    of_classes = _of_classes(scores)
    if np.ptp(of_classes, axis=1).max() >= NOISE:
        size = float(np.sqrt(np.mean(scores**2)))
        problem = _Problem(of_classes / size, labels, weights)
        slope, offsets = fit(*problem, with_offsets=False)
        sums = np.bincount(labels, weights, minlength=classes)
        if sums.max() >= IMBALANCED * sums.min():
            slope, offsets = _better(problem, slope, groups=groups, seed=seed)
        if slope > 0:
            found = None if not offsets.any() else offsets if scores.shape[1] > 1 else offsets[1:] - offsets[:1]
            return Calibration(slope / size, found)
    return Calibration(0.0, frequencies(labels, classes=classes, weights=weights))


def frequencies(labels: np.ndarray, *, classes: int, weights: np.ndarray) -> np.ndarray:
    """(outputs,): the logits of the weighted class frequencies; a class without a record counts as half a record."""
    sums = np.bincount(labels, weights, minlength=classes)
    logs = np.log(np.where(sums > 0, sums, 0.5 * weights.mean()) / weights.sum())
    return logs[1:] - logs[:1] if classes == 2 else logs


def fit(
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    with_offsets: bool,
    start: tuple[float, np.ndarray] | None = None,
) -> tuple[float, np.ndarray]:
    """Slope ≥ 0 and offsets (K,), whose sum is 0, of the least weighted log loss against smoothed targets.

    Newton's method on a convex function; a step that does not lower it is halved.

    Args:
        scores: (N, K); of size about 1.
        start: slope and offsets from which to start; None: 0.
    """
    problem, classes = _Problem(scores, labels, weights), scores.shape[1]
    wanted = _wanted(problem)
    values = np.zeros(1 + classes) if start is None else np.concatenate([[start[0]], start[1]])
    values = _minimum(problem, wanted, values, with_offsets=with_offsets)
    if values[0] <= 0:  # with slope 0 the chances, the same for every record, are the mean targets
        values = np.concatenate([[0.0], np.log(wanted[1:]) if with_offsets else np.zeros(classes)])
    return float(values[0]), values[1:] - values[1:].mean()


def _minimum(problem: _Problem, wanted: np.ndarray, values: np.ndarray, *, with_offsets: bool) -> np.ndarray:
    """Slope and offsets (1 + K,) of the least loss, from `values` on; without offsets only the slope changes."""
    free = slice(0, len(values) if with_offsets else 1)
    found = _derivatives(problem, wanted, values, with_offsets=with_offsets)
    for _ in range(STEPS):
        loss, gradient, curvature = found
        step = np.zeros_like(values)
        ridge = 1e-12 * max(1.0, np.trace(curvature)) * np.eye(len(curvature))
        step[free] = -np.linalg.solve(curvature + ridge, gradient)
        descent = float(gradient @ step[free])
        if -descent <= ENOUGH * problem.weights.sum():
            return values + step
        size = 1.0
        while size > 1e-10:
            found = _derivatives(problem, wanted, values + size * step, with_offsets=with_offsets)
            if found[0] <= loss + 1e-4 * size * descent:
                break
            size /= 2
        values = values + size * step
    return values


def _better(problem: _Problem, slope: float, *, groups: Groups, seed: int) -> tuple[float, np.ndarray]:
    """Slope and offsets; the offsets are 0 unless they lower the log loss in cross-validation over folds.

    Args:
        slope: of all records, without offsets.
    """
    without = slope, np.zeros(problem.scores.shape[1])
    if groups.count < 2:
        return without
    made = fit(*problem, with_offsets=True, start=without)
    number = min(FOLDS, groups.count)
    fold = folds(problem.labels, groups, number=number, seed=seed)
    losses = np.zeros(2)
    for out in range(number):
        rest, held = problem.some(fold != out), problem.some(fold == out)
        if not len(rest.labels) or not len(held.labels):
            continue
        for i, start in enumerate((without, made)):  # all but a fold are fitted in few steps from all
            of_rest, offsets = fit(*rest, with_offsets=i == 1, start=start)
            logits = of_rest * held.scores + offsets
            own = np.take_along_axis(logits, held.labels[:, None], axis=1)[:, 0]
            losses[i] += held.weights @ (logsumexp(logits, axis=1) - own)
    return made if losses[1] < losses[0] else without


def _of_classes(scores: np.ndarray) -> np.ndarray:
    """Scores of all classes; one score s is -s / 2 and s / 2 of two, whose softmax is its sigmoid."""
    return scores if scores.shape[1] > 1 else np.hstack([-scores / 2, scores / 2])


def _wanted(problem: _Problem) -> np.ndarray:
    """(1 + K,): sums over records of weight × smoothed target × score, over all classes, and of weight × target.

    The loss is the sum of weight × log-sum-exp of the logits, minus slope and offsets times this.
    """
    scores, labels, weights = problem
    classes = scores.shape[1]
    rest = 1 / (np.bincount(labels, minlength=classes)[labels] + 2)
    of_other, of_own = weights * rest / (classes - 1), weights * (1 - rest)
    own = scores[np.arange(len(labels)), labels]
    of_slope = of_other @ (scores.sum(axis=1) - own) + of_own @ own
    return np.concatenate([[of_slope], of_other.sum() + np.bincount(labels, of_own - of_other, minlength=classes)])


def _blocks(problem: _Problem, values: np.ndarray):
    """Yields scores, weights, log-sum-exp of the logits and chances of some records."""
    size = max(1, BLOCK_VALUES // problem.scores.shape[1])
    for start in range(0, len(problem.labels), size):
        scores, weights = problem.scores[start : start + size], problem.weights[start : start + size]
        chances = values[0] * scores + values[1:]
        largest = chances.max(axis=1, keepdims=True)
        chances -= largest
        np.exp(chances, out=chances)
        total = chances.sum(axis=1, keepdims=True)
        chances /= total
        yield scores, weights, (largest + np.log(total))[:, 0], chances


def _derivatives(
    problem: _Problem, wanted: np.ndarray, values: np.ndarray, *, with_offsets: bool
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradient (F,) and curvature (F, F) at slope and offsets `values`: F = 1 + K, or 1 for the slope alone.

    A constant added to all offsets changes nothing; the curvature in that direction is made 1 and the gradient is 0.
    """
    free = len(values) if with_offsets else 1
    loss, gradient, curvature = -float(wanted @ values), -wanted[:free], np.zeros((free, free))
    for scores, weights, summed, chances in _blocks(problem, values):
        loss += float(weights @ summed)
        means = np.einsum("ij,ij->i", chances, scores)
        gradient[0] += weights @ means
        from_mean = scores - means[:, None]
        curvature[0, 0] += weights @ np.einsum("ij,ij,ij->i", chances, from_mean, from_mean)
        if with_offsets:
            sums = weights @ chances
            gradient[1:] += sums
            curvature[0, 1:] += weights @ (chances * from_mean)
            chances *= np.sqrt(weights)[:, None]
            curvature[1:, 1:] += np.diag(sums) - chances.T @ chances
    if with_offsets:
        curvature[1:, 0] = curvature[0, 1:]
        curvature[1:, 1:] += 1.0
    return loss, gradient, curvature
