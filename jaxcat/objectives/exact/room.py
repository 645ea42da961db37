"""Whether the matrices of an exact solution fit in memory."""

from __future__ import annotations

import numpy as np

from jaxcat.errors import DataError
from jaxcat.objectives.exact.parts import Processes
from jaxcat.objectives.exact.problem import Problem
from jaxcat.objectives.exact.scaling import BLOCK_BYTES
from jaxcat.system import memory


def room_for_ranking(problem: Problem, processes: Processes, *, dual: int, primal: int, largest: int) -> None:
    """Raises if `choice.rank` has too little memory; see `_check`.

    Args:
        dual: number of ranges with the dual Gram matrix.
        primal: columns of all ranges with the primal one.
        largest: columns of the largest of these.
    """
    records, copies = len(problem.labels), _copies(processes)
    values = records**2 * (dual + 8 + copies) if dual else 0
    _check(problem, processes, values + primal**2 * copies + 8 * largest**2)


def room_for_range(problem: Problem, processes: Processes, *, columns: int, widest: int, limit: int) -> None:
    """Raises if `large.fit_beside` has too little memory for a range of so many columns; see `_check`.

    Args:
        columns: columns of the range.
        widest: columns of its widest part.
        limit: with more records and columns than this, decompositions take no memory but the matrix.
    """
    records = len(problem.labels)
    size = min(records, columns)
    values = size**2 * (_copies(processes) + (8 if size <= limit else 0))
    largest = max((several.shape[1] for several in problem.groups.whole().several), default=1)
    rows = 2 * records * widest if columns >= records else 3 * columns * largest
    _check(problem, processes, values + rows)


def _copies(processes: Processes) -> int:
    """How many copies of a matrix there are while it is summed over processes."""
    return 1 if processes.count == 1 else 3


def _check(problem: Problem, processes: Processes, values: int) -> None:
    """Raises in every process or in none; whether one of them has no room is summed over processes.

    Args:
        values: float64 numbers that are held beside targets, residuals and one block of rows.

    Raises:
        DataError: a process has no room.
    """
    needed = 8 * values + 6 * problem.centred.nbytes + 3 * BLOCK_BYTES
    room = memory.available()
    if processes.sum(np.array([float(needed > room)]))[0] > 0:
        raise DataError(
            f"an exact head on {len(problem.labels):,} records takes {needed / 1e9:.1f} GB of memory, and "
            f"{room / 1e9:.1f} GB are free: use fewer records (--config.data.train_size=N) or fewer blocks "
            "(--config.model.cut=BLOCK, or the :fast variant of the recipe)"
        )
