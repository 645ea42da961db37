"""Parts on a common scale: centred on their weighted mean, divided by their root-mean-square distance from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxcat.errors import DataError
from jaxcat.objectives.exact.parts import Part, Processes, runs, share

BLOCK_BYTES = 2**27  # of float64 rows that are held at a time
# A part whose scale is no more than this share of its root-mean-square norm is constant: float32 rows of the same
# values differ by about 1e-7 of their norm.
CONSTANT = 1e-6


class Scaled(NamedTuple):
    """Parts with their scales.

    Attributes:
        parts: the parts.
        means: for each part, float64 (width,), the weighted mean over records.
        scales: float64 (parts,), square root of the weighted mean over records of ‖x - mean‖²; 0 if the part is
            constant.
        roots: float64 (N,), square root of each record's weight.
    """

    parts: Sequence[Part]
    means: list[np.ndarray]
    scales: np.ndarray
    roots: np.ndarray

    def kept(self, blocks: Sequence[str]) -> list[int]:
        """Numbers of the parts of these blocks that are not constant."""
        return [i for i, part in enumerate(self.parts) if part.block in blocks and self.scales[i] > 0]

    def columns(self, kept: Sequence[int]) -> int:
        return sum(self.parts[i].width for i in kept)

    def rows(self, kept: Sequence[int], numbers: np.ndarray) -> np.ndarray:
        """float64 (n, columns): the scaled parts `kept` of these records side by side, times the root of the weight."""
        rows = np.empty((len(numbers), self.columns(kept)))
        at = 0
        for i in kept:
            of_part = rows[:, at : at + self.parts[i].width]
            read_rows(self.parts[i], numbers, out=of_part)
            of_part -= self.means[i]
            of_part *= (self.roots[numbers] / self.scales[i])[:, None]
            at += self.parts[i].width
        return rows


def read_rows(part: Part, numbers: np.ndarray, *, out: np.ndarray) -> None:
    """Copies the rows of these records into `out`, (n, width)."""
    done = 0
    for start, stop in runs(numbers):
        out[done : done + stop - start] = part.read(start, stop)
        done += stop - start


def rows_at_a_time(columns: int) -> int:
    """How many rows of this many float64 columns are held at a time."""
    return max(16, BLOCK_BYTES // (8 * max(1, columns)))


def scale_parts(
    parts: Sequence[Part], roots: np.ndarray, *, processes: Processes, progress: Callable[[str], None]
) -> Scaled:
    """Means and scales of parts; each process reads its slice of the records twice.

    Summed over processes: the sums of all columns, then the sums of squared distances of all parts.

    Raises:
        DataError: a value is infinite or NaN.
    """
    weights, total = roots**2, float((roots**2).sum())
    sums = [np.zeros(part.width) for part in parts]
    for i, part in enumerate(parts):
        progress(f"means of {part.block}")
        for numbers, rows in _slices(part, len(roots), processes):
            sums[i] += weights[numbers] @ rows
    edges = np.cumsum([part.width for part in parts])[:-1]
    means = np.split(processes.sum(np.concatenate(sums)) / total, edges)
    squares = np.zeros(len(parts))
    for i, part in enumerate(parts):
        progress(f"scale of {part.block}")
        for numbers, rows in _slices(part, len(roots), processes):
            rows -= means[i]
            squares[i] += weights[numbers] @ np.einsum("ij,ij->i", rows, rows)
    squares = processes.sum(squares) / total
    for part, square in zip(parts, squares, strict=True):
        if not np.isfinite(square):
            raise not_finite(part)
    norms = np.array([mean @ mean for mean in means]) + squares
    return Scaled(parts, means, np.where(squares > CONSTANT**2 * norms, np.sqrt(squares), 0.0), roots)


def not_finite(part: Part) -> DataError:
    """The error for a part with infinite or NaN values."""
    return DataError(
        f"the features of block {part.block} ({part.statistic}) have values that are not finite: the weights "
        "(--config.model.weights) or the images give NaN"
    )


def _slices(part: Part, records: int, processes: Processes) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields numbers and float64 rows of the records in this process's slice."""
    begin, end = share(records, processes)
    size = rows_at_a_time(part.width)
    for start in range(begin, end, size):
        stop = min(end, start + size)
        yield slice(start, stop), np.array(part.read(start, stop), np.float64)
