"""What the exact solver reads: pooled features in parts, records in groups, and the processes that share the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


class Part(NamedTuple):
    """One statistic of one block: some columns of the pooled features of every record.

    Attributes:
        block: name of the block.
        statistic: name of the statistic.
        width: number of columns.
        read: takes (start, stop), gives the rows of these records, float32 (stop - start, width). It may read from
            disk. Every process must be able to read every row.
    """

    block: str
    statistic: str
    width: int
    read: Callable[[int, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among those that solve one head together.

    Attributes:
        index: number of this process, from 0.
        count: how many there are.
        sum: takes a float64 array of the same shape in every process, gives the sum over processes, writable and the
            same to the last bit in each. Every process calls it equally often, in the same order.
    """

    index: int
    count: int
    sum: Callable[[np.ndarray], np.ndarray]

    def from_owner(self, array: np.ndarray, *, owner: int = 0) -> np.ndarray:
        """The array that process `owner` passes here, in every process; the others pass one of that shape."""
        if self.count == 1:
            return array
        return self.sum(np.asarray(array, np.float64) if self.index == owner else np.zeros(np.shape(array)))


ALONE = Processes(0, 1, lambda array: array)


class Batch(NamedTuple):
    """Records of whole groups.

    Attributes:
        numbers: (n,) numbers of the records.
        several: for each size k > 1 of a group, (groups, k) positions in `numbers` of the records of each group.
    """

    numbers: np.ndarray
    several: list[np.ndarray]


class Groups:
    """Which records are left out together.

    Attributes:
        count: number of groups.
        of_record: (records,) number of each record's group, from 0, in the order of their first records.
    """

    def __init__(self, groups: np.ndarray | None, *, records: int):
        """`groups`: int (records,), equal for records that are left out together; None: each record alone."""
        names = np.arange(records) if groups is None else np.asarray(groups)
        _, first, of_record = np.unique(names, return_index=True, return_inverse=True)
        self.of_record = np.argsort(np.argsort(first))[of_record]
        self._order = np.argsort(self.of_record, kind="stable")
        sizes = np.bincount(self.of_record, minlength=len(first))
        self._ends = np.cumsum(sizes)
        self._starts = self._ends - sizes
        self.count = len(sizes)

    def batches(self, most: int, processes: Processes = ALONE) -> Iterator[Batch]:
        """Yields the groups that are this process's share: as many as have `most` records together, at least one."""
        owners = self._starts * processes.count // max(1, len(self._order))
        begin, end = np.searchsorted(owners, [processes.index, processes.index + 1])
        while begin < end:
            last = np.searchsorted(self._ends, self._starts[begin] + most, side="right")
            last = min(end, max(begin + 1, last))
            yield self._batch(slice(begin, last))
            begin = last

    def _batch(self, chosen: slice) -> Batch:
        starts, ends = self._starts[chosen], self._ends[chosen]
        sizes = ends - starts
        several = [
            (starts[sizes == size] - starts[0])[:, None] + np.arange(size) for size in np.unique(sizes) if size > 1
        ]
        return Batch(self._order[starts[0] : ends[-1]], several)

    def whole(self) -> Batch:
        """All groups in one batch."""
        return self._batch(slice(0, self.count))


def share(total: int, processes: Processes) -> tuple[int, int]:
    """First and last + 1 of the `total` numbers that are this process's share."""
    return total * processes.index // processes.count, total * (processes.index + 1) // processes.count


def runs(numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of the runs of consecutive numbers in `numbers`, in their order."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    for run in np.split(numbers, breaks) if len(numbers) else []:
        yield int(run[0]), int(run[-1]) + 1
