"""Divides groups of records among parts, such as folds: stratified by class as far as whole groups allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PASSES = 20  # over all groups, to move single groups where they fit better; few are needed
ABSENT = 1e6  # cost of a class that is missing in a part, above all others


def spread(members: np.ndarray, labels: np.ndarray, *, classes: int, shares: Sequence[float]) -> np.ndarray:
    """Assigns every group to a part.

    The groups are taken in their order. Each goes to the part where it brings the numbers of images of its classes,
    and of all images, nearest to the shares; then single groups are moved as long as that improves.

    Args:
        members: (N,) the group of each record, integers from 0; their order decides between equally good divisions.
        labels: (N,) the class of each record.
        classes: number of classes.
        shares: of all images, by part; their sum is 1.

    Returns:
        int64 (number of groups,): the part of each group.
    """
    count = int(members.max()) + 1
    order = np.lexsort((labels, members))
    starts = np.searchsorted(members[order], np.arange(count + 1))
    columns, sizes = [], []
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        present, number = np.unique(labels[order[start:end]], return_counts=True)
        columns.append(np.append(present, classes))  # the last column counts all images
        sizes.append(np.append(number, end - start).astype(float))
    state = _State(np.append(np.bincount(labels, minlength=classes), len(labels)), np.asarray(shares, float))
    part = np.full(count, -1)
    for group in range(count):
        part[group] = int(state.added(columns[group], sizes[group]).argmin())
        state.add(columns[group], sizes[group], int(part[group]))
    for _ in range(PASSES):
        if not sum(_improve(group, part, columns, sizes, state) for group in range(count)):
            break
    return part


class _State:
    """The number of images of each class, and of all, in every part; and how far that is from the shares."""

    def __init__(self, totals: np.ndarray, shares: np.ndarray):
        self._weights = 1.0 / np.maximum(totals, 1.0) ** 2
        self._wanted = shares[:, None] * totals[None, :]
        self._there = np.zeros_like(self._wanted)

    def added(self, columns: np.ndarray, size: np.ndarray) -> np.ndarray:
        """(parts,): how the cost of every part changes if a group is added to it."""
        there = self._there[:, columns]
        squares = size * (size + 2 * (there - self._wanted[:, columns]))
        return (squares * self._weights[columns]).sum(axis=1) - ABSENT * (there == 0).sum(axis=1)

    def add(self, columns: np.ndarray, size: np.ndarray, part: int, sign: int = 1) -> None:
        self._there[part, columns] += sign * size


def _improve(group: int, part: np.ndarray, columns: list, sizes: list, state: _State) -> bool:
    """Moves a group to the part where it costs least; says whether it moved."""
    here = int(part[group])
    state.add(columns[group], sizes[group], here, -1)
    costs = state.added(columns[group], sizes[group])
    best = int(costs.argmin())
    if costs[best] >= costs[here] - 1e-9:
        best = here
    state.add(columns[group], sizes[group], best)
    part[group] = best
    return best != here
