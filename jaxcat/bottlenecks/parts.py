"""The parts of a bottleneck, each with its own key, side by side.

Pooled features have a part for each block and statistic. A map is one part; beside pooled features it is flattened.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxcat.bottlenecks.rows import Rows
from jaxcat.models.pooling import PooledPart
from jaxcat.wording import gigabytes

if TYPE_CHECKING:
    from jaxcat.models.network import Network

# Called with two numbers of records: gives the rows from the first up to, not including, the second as float32
# (n, width). It may be a part of a larger array that is read elsewhere: do not write into it.
PartReader = Callable[[int, int], np.ndarray]


class Reader(Protocol):
    """Reads the bottlenecks of one pass by the number of the record."""

    def __call__(self, numbers: np.ndarray, out: np.ndarray) -> None:
        """Copies the bottlenecks with these numbers (n,) into `out` (n, *shape); -1 is the last one."""

    def part(self, index: int) -> PartReader:
        """Reads one part of pooled features, by its place among the parts."""


class Parts:
    """The rows of all parts of a bottleneck.

    Attributes:
        rows: those of each part, in the order of the features.
        shape: of a bottleneck: that of a map alone, or (numbers,).
        dtype: float16 or float32.
        row_bytes: bytes of a bottleneck.
    """

    def __init__(self, rows: Sequence[Rows]):
        self.rows = tuple(rows)
        alone = len(self.rows) == 1
        self.shape, self.dtype = self.rows[0].shape if alone else (edges(self.rows)[-1],), self.rows[0].dtype
        self.row_bytes = sum(each.row_bytes for each in self.rows)

    def open(self) -> None:
        """Makes the folders that do not exist, and finds the rows that are in them; see `Rows.open`."""
        for rows in self.rows:
            rows.open()

    def exist(self) -> bool:
        """Whether every part has a folder."""
        return all(os.path.isdir(rows.folder) for rows in self.rows)  # unlike Path.is_dir, it takes "no access" as no

    def refresh(self, wanted: Sequence[bytes]) -> None:
        """Finds the blocks that have rows with these identities; see `Rows.refresh`."""
        for rows in self.rows:
            rows.refresh(wanted)

    def describe(self, count: int) -> str:
        """Shape and dtype of a bottleneck, and the size of `count` of them, such as `4096 float32, 16.4 MB`."""
        return f"{'×'.join(map(str, self.shape))} {self.dtype}, {gigabytes(count * self.row_bytes)}"

    def missing(self, wanted: Sequence[bytes]) -> np.ndarray:
        """bool (parts, n): which of the rows with these identities each part lacks."""
        return np.stack([rows.missing(wanted) for rows in self.rows])

    def reader(self, wanted: Sequence[bytes], *, in_memory: bool) -> Reader:
        """Reads the bottlenecks with these identities, from memory maps or from a copy made now."""
        mapped = _Mapped(self.rows, [rows.positions(wanted) for rows in self.rows])
        if not in_memory:
            return mapped
        copied = np.empty((len(wanted), *self.shape), self.dtype)
        mapped(np.arange(len(wanted)), copied)
        for rows in self.rows:
            rows.unmap()
        return _Copied(copied, edges(self.rows))


def pooled(keys: Sequence[Mapping[str, Any]], parts: Sequence[PooledPart]) -> Parts:
    """The parts of pooled features, a key for each of them; reads and makes nothing."""
    return _side_by_side(keys, [(part.width,) for part in parts])


def parts_of(keys: Sequence[Mapping[str, Any]], *, network: Network) -> Parts:
    """The parts of the output of a network's prefix; reads and makes nothing.

    Args:
        keys: the result of `bottlenecks.key.keys_of`.
        network: the network that they are of.
    """
    return _side_by_side(keys, [network.bottleneck.shape_of(part) for part in network.bottleneck.parts])


def _side_by_side(keys: Sequence[Mapping[str, Any]], shapes: Sequence[tuple[int, ...]]) -> Parts:
    others = len(keys) - 1
    return Parts([Rows(dict(key), shape=shape, beside=others) for key, shape in zip(keys, shapes, strict=True)])


class _Mapped:
    """A `Reader` of memory maps."""

    def __init__(self, rows: Sequence[Rows], positions: Sequence[np.ndarray]):
        self._rows, self._positions = rows, positions

    def __call__(self, numbers: np.ndarray, out: np.ndarray) -> None:
        ends = edges(self._rows)
        flat = out.reshape(len(out), ends[-1], copy=False)  # nothing would come back from a copy
        for rows, positions, (start, end) in zip(self._rows, self._positions, itertools.pairwise(ends), strict=True):
            rows.gather(positions[numbers], flat[:, start:end])

    def part(self, index: int) -> PartReader:
        rows, positions = self._rows[index], self._positions[index]

        def read(start: int, stop: int) -> np.ndarray:
            wanted = positions[start:stop]
            out = np.empty((len(wanted), *rows.shape), np.float32)
            rows.gather(wanted, out)
            return out

        return read


class _Copied:
    """A `Reader` of an array (records, *shape); part i ends where part i + 1 begins."""

    def __init__(self, array: np.ndarray, begins: Sequence[int]):
        self._array, self._edges = array, begins

    def __call__(self, numbers: np.ndarray, out: np.ndarray) -> None:
        np.take(self._array, numbers, axis=0, out=out, mode="wrap")  # "raise" copies twice

    def part(self, index: int) -> PartReader:
        rows = self._array[:, self._edges[index] : self._edges[index + 1]]
        return lambda start, stop: rows[start:stop].astype(np.float32, copy=False)


def edges(rows: Sequence[Rows]) -> list[int]:
    """Where each part begins in a bottleneck, and where the last one ends."""
    return [0, *itertools.accumulate(math.prod(each.shape) for each in rows)]
