"""Seeded divisions of records in which every class has its part and groups stay whole."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcat.objectives.exact.parts import Groups


class _Ranked(NamedTuple):
    """For each group: its class, that of its first record; its random place in the class; the groups of its class."""

    classes: np.ndarray
    places: np.ndarray
    sizes: np.ndarray


def _ranked(labels: np.ndarray, groups: Groups, seed: int) -> _Ranked:
    _, first = np.unique(groups.of_record, return_index=True)
    of_group = labels[first]
    order = np.random.default_rng(seed).permutation(groups.count)
    order = order[np.argsort(of_group[order], kind="stable")]
    counts = np.bincount(of_group)
    places = np.empty(groups.count, np.int64)
    places[order] = np.arange(groups.count) - np.repeat(np.cumsum(counts) - counts, counts)
    return _Ranked(of_group, places, counts[of_group])


def folds(labels: np.ndarray, groups: Groups, *, number: int, seed: int) -> np.ndarray:
    """int (N,): the fold of each record, from 0 to `number` - 1; every class is spread over the folds."""
    ranked = _ranked(labels, groups, seed)
    return ((ranked.places + ranked.classes) % number)[groups.of_record]


def subset(labels: np.ndarray, groups: Groups, *, most: int, seed: int) -> np.ndarray:
    """Sorted numbers of at most `most` records: whole groups, and of every class the same share, one group at least.

    If whole groups are so large that they fill less than half of `most`, parts of groups are taken.
    """
    for candidates in (groups, Groups(None, records=len(labels))):
        ranked = _ranked(labels, candidates, seed)
        chosen, count = np.zeros(candidates.count, bool), 0
        sizes = np.bincount(candidates.of_record)
        for group in np.lexsort((ranked.places, ranked.places / ranked.sizes)):
            if count + sizes[group] <= most:
                chosen[group] = True
                count += sizes[group]
        if count >= min(most, len(labels)) / 2:
            break
    return np.flatnonzero(chosen[candidates.of_record])
