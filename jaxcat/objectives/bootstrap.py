"""The bootstrap: sums over records in samples drawn again, in which records of a group stay together."""

from __future__ import annotations

from typing import Any

import numpy as np

DRAWS = 2000
TOGETHER = 2**22  # numbers of groups that are drawn at once


def drawn_sums(values: Any, groups: np.ndarray | None = None, *, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Sums over the records of samples of groups, float64 (draws, C).

    Each sample has as many groups as there are, drawn with replacement.

    Args:
        values: (N, C), an array or a sparse matrix of SciPy: what is summed of each of N > 0 records.
        groups: int (N,), equal for records of one group; None: each record alone.
        seed: of the draws.
    """
    if groups is not None:
        values = _by_group(values, np.unique(groups, return_inverse=True)[1])
    count, random = values.shape[0], np.random.default_rng(seed)
    found = np.empty((draws, values.shape[1]))
    at_once = max(1, TOGETHER // count)
    for start in range(0, draws, at_once):
        stop = min(start + at_once, draws)
        shape = (stop - start, count)
        drawn = random.integers(0, count, shape) + count * np.arange(shape[0])[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(shape)
        found[start:stop] = (values.T @ times.T.astype(np.float64)).T
    return found


def _by_group(values: Any, of_record: np.ndarray) -> Any:
    """The sums of the values of each group, (G, C)."""
    from scipy.sparse import csr_array  # takes 0.2 s to import, and few data have groups

    count = len(of_record)
    places = csr_array((np.ones(count), (of_record, np.arange(count))), shape=(int(of_record.max()) + 1, count))
    return places @ values
