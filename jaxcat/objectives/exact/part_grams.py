"""Dual Gram matrices of single parts, from which any selection of parts and records is solved without reading again.

The matrices are of features centred on all records. For a selection of records, leaving out the intercept's direction
centres the features, so only the scales are computed again, from the matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxcat.errors import DataError
from jaxcat.objectives.exact.gram import add_products, copy_triangle
from jaxcat.objectives.exact.parts import Part
from jaxcat.objectives.exact.problem import Problem
from jaxcat.objectives.exact.scaling import CONSTANT, not_finite, read_rows
from jaxcat.system import memory

TILE = 256  # rows that are weighted at a time


class PartGrams(NamedTuple):
    """One Gram matrix for each part.

    Attributes:
        parts: the parts.
        matrices: for each part, float64 (N, N), symmetric, of its features minus their mean over the N records.
        means: for each part, the squared length of that mean.
    """

    parts: tuple[Part, ...]
    matrices: tuple[np.ndarray, ...]
    means: tuple[float, ...]

    @property
    def records(self) -> int:
        return len(self.matrices[0])


def part_grams(
    parts: Sequence[Part], numbers: np.ndarray, *, progress: Callable[[str], None] = lambda words: None
) -> PartGrams:
    """The Gram matrix of each part, of the records `numbers`, int (N,), which are sorted.

    Takes 8 bytes × parts × N² of memory.

    Raises:
        DataError: a feature is infinite or NaN, or there is too little memory.
    """
    needed, room = 8 * (len(parts) + 6) * len(numbers) ** 2, memory.available()
    if needed > room:
        raise DataError(
            f"comparing blocks on {len(numbers):,} records takes {needed / 1e9:.1f} GB of memory, and {room / 1e9:.1f} "
            "GB are free: use fewer records (--config.data.train_size=N)"
        )
    matrices, means = [], []
    for part in parts:
        progress(f"Gram matrix of {part.block}")
        rows = np.empty((len(numbers), part.width))
        read_rows(part, numbers, out=rows)
        if not np.isfinite(rows).all():
            raise not_finite(part)
        mean = rows.mean(axis=0)
        rows -= mean
        gram = add_products(np.zeros((len(numbers), len(numbers)), order="F"), rows)
        copy_triangle(gram, to_lower=False)
        matrices.append(gram)
        means.append(float(mean @ mean))
    return PartGrams(tuple(parts), tuple(matrices), tuple(means))


class Selection:
    """Parts of some of the records on one scale: the Gram matrices of a problem.

    Attributes:
        problem: of the chosen records.
        numbers: int (n,), their numbers among the records of the matrices, sorted.
        scales: float64 (parts,), the mean squared distance from the mean of each part; 0 if it is constant.
    """

    def __init__(self, grams: PartGrams, problem: Problem, numbers: np.ndarray | None = None):
        """`numbers`: None: all records."""
        self._grams, self.problem = grams, problem
        self.numbers = np.arange(grams.records) if numbers is None else numbers
        self._all = numbers is None
        self._weighted = bool(np.ptp(problem.roots) > 0)
        self.scales = np.array([self._scale(part) for part in range(len(grams.parts))])

    def _scale(self, part: int) -> float:
        matrix, weights = self._grams.matrices[part], self.problem.roots**2
        rows = matrix if self._all else matrix[np.ix_(self.numbers, self.numbers)]
        total = float(weights.sum())
        of_mean = float(weights @ (rows @ weights)) / total**2
        scale = float(weights @ np.diag(rows)) / total - of_mean
        return scale if scale > CONSTANT**2 * (self._grams.means[part] + of_mean + scale) else 0.0

    def kept(self, parts: Sequence[int]) -> list[int]:
        """Those of these parts that are not constant."""
        return [part for part in parts if self.scales[part] > 0]

    def unit(self, parts: Sequence[int]) -> float:
        """What relative penalties are multiplied by; see `Work.unit`."""
        return max(1, len(self.kept(parts))) * float(np.mean(self.problem.roots**2))

    def gram(self, parts: Sequence[int]) -> np.ndarray:
        """ZZᵀ of these parts, float64 (n, n), Fortran order, a new array."""
        total = np.zeros((len(self.numbers), len(self.numbers)), order="F")
        self.add(total, parts)
        return total

    def add(self, total: np.ndarray, parts: Sequence[int]) -> None:
        """Adds ZZᵀ of these parts to `total`."""
        roots = self.problem.roots
        for part in self.kept(parts):
            matrix = self._grams.matrices[part]
            rows = matrix if self._all else matrix[np.ix_(self.numbers, self.numbers)]
            if not self._weighted:
                total += rows * (roots[0] ** 2 / self.scales[part])
                continue
            for start in range(0, len(rows), TILE):
                some = slice(start, start + TILE)
                total[:, some] += rows[:, some] * roots[:, None] * (roots[None, some] / self.scales[part])

    def scores_of_others(self, parts: Sequence[int], others: np.ndarray, dual: np.ndarray) -> np.ndarray:
        """Scores float64 (m, outputs) of the records `others`, from a fit on the chosen ones with its `dual`."""
        weights, problem = self.problem.roots**2, self.problem
        coefficients = dual * problem.roots[:, None]
        scores = np.tile(problem.means, (len(others), 1))
        for part in self.kept(parts):
            matrix = self._grams.matrices[part]
            inner = matrix[np.ix_(self.numbers, self.numbers)] if not self._all else matrix
            mean = weights / weights.sum()
            # centred on the mean of the chosen records on both sides
            cross = matrix[np.ix_(others, self.numbers)] @ coefficients
            of_mean = mean @ (inner @ coefficients)
            total = coefficients.sum(axis=0)
            of_others = matrix[np.ix_(others, self.numbers)] @ mean
            shift = float(mean @ (inner @ mean))
            scores += (cross - of_mean - np.outer(of_others, total) + shift * total) / self.scales[part]
        return scores
