"""Which records leave-one-out can judge: those whose class has records in another group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcat.objectives.exact.problem import Problem, problem_of

NAMED = 5  # classes that a note names at most
ONE_GROUP = (
    "Each class has all its records of train in one group, because the data say so or the images have the same "
    "pixels. Without its group, none could be judged; so each record was left out alone, and the leave-one-out figures "
    "are too good."
)
ONE_RECORD = (
    "No class has more than one record in train: if that is left out, nothing is left to learn the class from, so the "
    "leave-one-out figures say nothing about new images."
)


def judged_problem(
    labels: np.ndarray,
    *,
    classes: int,
    groups: np.ndarray | None,
    class_weights: np.ndarray | None,
    names: Sequence[str],
) -> tuple[Problem, list[str]]:
    """The problem of these labels, and sentences on what leave-one-out cannot judge in it; see `solve_head`.

    If no class has two groups, records are left out alone.
    """
    problem = problem_of(labels, classes=classes, groups=groups, class_weights=class_weights)
    counts = _groups_of_classes(problem)
    if counts.max() > 1:
        return problem, _on_single(counts, names)
    alone = problem_of(labels, classes=classes, groups=None, class_weights=class_weights)
    counts = _groups_of_classes(alone)
    if counts.max() > 1:
        return alone, [ONE_GROUP, *_on_single(counts, names)]
    return alone, [ONE_RECORD]


def _groups_of_classes(problem: Problem) -> np.ndarray:
    """(classes,): the number of groups that have records of each class, up to the last class with records."""
    pairs = np.unique(np.stack([problem.labels, problem.groups.of_record]), axis=1)
    return np.bincount(pairs[0])


def _on_single(counts: np.ndarray, names: Sequence[str]) -> list[str]:
    """A sentence on the classes of one group, if any."""
    single = np.flatnonzero(counts == 1)
    if not len(single):
        return []
    named = [str(names[label]) if len(names) else f"number {label}" for label in single[:NAMED]]
    if len(single) > NAMED:
        named.append(f"{len(single) - NAMED:,} more")
    return [
        f"In {len(single):,} of {np.sum(counts > 0):,} classes, all records are in one group, or there is a single one "
        f"({', '.join(named)}): if that is left out, nothing is left to learn the class from. So leave-one-out cannot "
        "judge such a class, and counts nearly all its records as wrong."
    ]
