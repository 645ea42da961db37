"""One least-squares problem: targets, weights and groups of its records, and the scores that follow from residuals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcat.objectives.exact.parts import Groups

NOISE = 1e-9  # scores that differ by less, for targets of 1 and -1, differ by rounding


class Problem(NamedTuple):
    """The records of one least-squares problem.

    Attributes:
        labels: int (N,).
        groups: which records are left out together.
        targets: float64 (N, outputs), 1 for records of the output's class, else -1; one output, of the second class,
            for two classes.
        means: (outputs,) weighted mean of the targets.
        roots: (N,) square root of each record's weight.
        unit: (N,) the same divided by its norm.
        centred: (N, outputs) targets minus their mean, times the root of the weight.
    """

    labels: np.ndarray
    groups: Groups
    targets: np.ndarray
    means: np.ndarray
    roots: np.ndarray
    unit: np.ndarray
    centred: np.ndarray

    def scores(self, left_out: np.ndarray, numbers: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What records get from a fit without their group, from their residuals times the root of the weight.

        Differences of the size of rounding are made ties: a single output of about 0 becomes 0; of several outputs,
        those close to a record's largest become equal to it. Otherwise rounding could answer every record rightly,
        although there is nothing to learn.
        """
        scores = self.targets[numbers] - left_out / self.roots[numbers, None]
        largest = scores.max(axis=1, keepdims=True) if scores.shape[1] > 1 else 0.0
        return np.where(abs(scores - largest) < NOISE, largest, scores)

    def sums(self, left_out: np.ndarray, numbers: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(2,): the sum of squared residuals over records and outputs, and the number of right answers."""
        right = answers(self.scores(left_out, numbers)) == self.labels[numbers]
        return np.array([(left_out**2).sum(), right.sum()])

    def averages(self, sums: np.ndarray) -> np.ndarray:
        """(…, 2): weighted mean squared error of an output, and accuracy, from sums (…, 2) over all records."""
        return sums / [float((self.roots**2).sum()) * self.targets.shape[1], len(self.labels)]


def problem_of(
    labels: np.ndarray, *, classes: int, groups: np.ndarray | None, class_weights: np.ndarray | None
) -> Problem:
    """The problem of these labels; see `solve_head`."""
    labels = np.asarray(labels)
    targets = (labels[:, None] == (np.arange(classes) if classes > 2 else np.array([1]))) * 2.0 - 1
    weights = np.ones(len(labels)) if class_weights is None else np.asarray(class_weights, np.float64)[labels]
    return _problem(labels, targets, weights, groups)


def problem_of_some(problem: Problem, numbers: np.ndarray) -> Problem:
    """The problem of these records alone, with their weights and groups."""
    weights, groups = problem.roots[numbers] ** 2, problem.groups.of_record[numbers]
    return _problem(problem.labels[numbers], problem.targets[numbers], weights, groups)


def _problem(labels: np.ndarray, targets: np.ndarray, weights: np.ndarray, groups: np.ndarray | None) -> Problem:
    roots, means = np.sqrt(weights), weights @ targets / weights.sum()
    return Problem(
        labels=labels,
        groups=Groups(groups, records=len(labels)),
        targets=targets,
        means=means,
        roots=roots,
        unit=roots / np.linalg.norm(roots),
        centred=(targets - means) * roots[:, None],
    )


def answers(scores: np.ndarray) -> np.ndarray:
    """The class of every row of scores or logits, (N,); with one output, the second class is the positive one."""
    return (scores[:, 0] > 0).astype(np.int64) if scores.shape[1] == 1 else scores.argmax(axis=1)
