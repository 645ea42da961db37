"""The same fits if an eigendecomposition takes too long: one Cholesky decomposition per penalty, in place.

The lower triangle of the only large matrix is decomposed; its upper one, and a copy of its diagonal, keep the Gram
matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import blas, lapack

from jaxcat.objectives.exact.decomposition import Fit, reflect, reflection
from jaxcat.objectives.exact.gram import copy_triangle
from jaxcat.objectives.exact.leave_one_out import solve_differences, solve_groups
from jaxcat.objectives.exact.parts import Processes
from jaxcat.objectives.exact.problem import Problem
from jaxcat.objectives.exact.work import Work


class NotPositiveError(ArithmeticError):
    """A Gram matrix plus a penalty that is not positive to float64's precision, in one process or more."""


class _Penalised:
    """A Gram matrix of which the sum with each penalty is decomposed."""

    def __init__(self, gram: np.ndarray, processes: Processes):
        """Takes the memory of `gram`, whose lower triangle is read."""
        self.matrix, self.diagonal, self._processes = gram, np.diag(gram).copy(), processes
        copy_triangle(gram, to_lower=False)

    def decompose(self, penalty: float) -> np.ndarray:
        """L with LLᵀ = Gram matrix + penalty, in the lower triangle of `matrix`; whether all succeed is summed.

        Raises:
            NotPositiveError: in every process, if one of them fails.
        """
        copy_triangle(self.matrix, to_lower=True)
        np.fill_diagonal(self.matrix, self.diagonal + penalty)
        _, status = lapack.dpotrf(self.matrix, lower=1, clean=0, overwrite_a=1)
        if self._processes.sum(np.array([float(status != 0)]))[0] > 0:
            raise NotPositiveError(f"the Gram matrix + {penalty:g} is not positive to float64's precision")
        return self.matrix


class DualCholesky:
    """See `DualEigen`; the reflected matrix keeps its first row and column, of which the diagonal is made 1."""

    def __init__(self, gram: np.ndarray, problem: Problem, *, processes: Processes):
        """Takes the memory of `gram`, (N, N), Fortran order, of which the lower triangle is read."""
        self._problem, self._normal = problem, reflection(problem.unit)
        gram = reflect(gram, self._normal)
        self._largest = float(np.trace(gram))
        gram[:, 0] = 0.0
        gram[0, 0] = 1.0
        self._penalised = _Penalised(gram, processes)

    def fit(self, penalty: float) -> Fit:
        lower, normal = self._penalised.decompose(penalty), self._normal
        right = np.column_stack([normal, self._mirrored(self._problem.centred)])
        right[0] = 0.0
        solved = lapack.dpotrs(lower, right, lower=1)[0]
        of_normal, dual = solved[:, 0], self._mirrored(solved[:, 1:])
        inverse, _ = lapack.dpotri(lower, lower=1, overwrite_c=1)
        inverse[0, 0] = 0.0
        twice = 2 * of_normal - 2 * (normal @ of_normal) * normal  # I - 2hhᵀ from both sides, as in `reflect`

        def block(numbers: np.ndarray) -> np.ndarray:
            row, column = numbers[..., :, None], numbers[..., None, :]
            mixed = normal[row] * twice[column]
            return inverse[np.maximum(row, column), np.minimum(row, column)] - mixed - mixed.swapaxes(-1, -2)

        whole = self._problem.groups.whole()
        left_out = solve_groups(
            dual,
            [whole.numbers[positions] for positions in whole.several],
            diagonal=np.diag(inverse) - 2 * normal * twice,
            block=block,
            unit=self._problem.unit,
            bound=1 / (self._largest + penalty),
        )
        return Fit(left_out, dual=dual)

    def _mirrored(self, columns: np.ndarray) -> np.ndarray:
        return columns - np.outer(2 * self._normal, self._normal @ columns)


class PrimalCholesky:
    """See `PrimalEigen`: records are read in batches, by every process its share."""

    def __init__(self, gram: np.ndarray, product: np.ndarray, *, work: Work, kept: Sequence[int]):
        """Takes the memory of `gram`, (D, D), Fortran order; `product` is Zᵀ times the centred targets."""
        self._work, self._kept, self._product = work, kept, product
        self._largest = float(np.trace(gram))
        self._penalised = _Penalised(gram, work.processes)

    def fit(self, penalty: float) -> Fit:
        problem, lower = self._work.problem, self._penalised.decompose(penalty)
        coefficients = self._work.processes.from_owner(lapack.dpotrs(lower, self._product, lower=1)[0])
        left_out = np.zeros_like(problem.centred)
        for numbers, several, rows in self._work.batches(self._kept):
            residuals = problem.centred[numbers] - rows @ coefficients
            rows = blas.dtrsm(1.0, lower, rows.T, lower=1, overwrite_b=1).T
            bound, unit = penalty / (self._largest + penalty), problem.unit[numbers]
            left_out[numbers] = solve_differences(rows, residuals, several, unit=unit, bound=bound)
        return Fit(self._work.processes.sum(left_out), primal=coefficients)
