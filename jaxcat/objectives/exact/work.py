"""What every step of a solution needs: the records, their features, and the processes that share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxcat.objectives.exact.parts import Processes
from jaxcat.objectives.exact.problem import Problem
from jaxcat.objectives.exact.scaling import Scaled, rows_at_a_time


class Work(NamedTuple):
    """What every step of a solution needs.

    Attributes:
        problem: the records.
        scaled: the features of all parts.
        processes: this process among all.
        progress: takes a few words on what is being done.
    """

    problem: Problem
    scaled: Scaled
    processes: Processes
    progress: Callable[[str], None]

    def unit(self, kept: Sequence[int]) -> float:
        """The mean diagonal of the dual Gram matrix of these parts; by their scaling each adds the mean weight."""
        return max(1, len(kept)) * float(np.mean(self.problem.roots**2))

    def batches(self, kept: Sequence[int]) -> Iterator[tuple[np.ndarray, list[np.ndarray], np.ndarray]]:
        """Yields this process's share of the records in batches of whole groups, and says how far it is.

        Args:
            kept: numbers of the parts that are read.

        Yields:
            As `Batch`, the numbers of the records and, for each size of a group, the places of its groups in them; and
            float64 (records of the batch, columns of the parts), their scaled features.
        """
        most, done = rows_at_a_time(3 * self.scaled.columns(kept)), 0
        for numbers, several in self.problem.groups.batches(most, self.processes):
            self.progress(f"leave-one-out: {done:,} of {len(self.problem.labels):,} records")
            yield numbers, several, self.scaled.rows(kept, numbers)
            done += len(numbers)
