"""Residuals of records that are left out, each with its group, from one fit on all records.

All in coordinates multiplied by the root of each record's weight. With u the unit vector of these roots, λ the penalty
and M = (ZZᵀ + λ)⁻¹ on the complement of u (the intercept's direction), 0 on u: I - hat matrix = λM, which thereby has
the intercept's share. A group G that is left out has the residual M_GG⁻¹ (M t)_G = (λM)_GG⁻¹ r_G, with r the residuals
of the fit on all. With the largest eigenvalue s of ZZᵀ, M_GG has no eigenvalue below (1 - ‖u_G‖²) / (s + λ).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

STACKED = 64  # larger matrices are solved one by one, by Cholesky decomposition
STACK_VALUES = 2**22  # numbers in the matrices that are solved at a time


def solve_groups(
    right: np.ndarray,
    several: Sequence[np.ndarray],
    *,
    diagonal: np.ndarray,
    block: Callable[[np.ndarray], np.ndarray],
    unit: np.ndarray,
    bound: float,
) -> np.ndarray:
    """e with A_GG e_G = right_G for every group of a symmetric matrix A that is positive on every group.

    Args:
        right: (n, outputs).
        several: for each size k > 1 of a group, (groups, k) numbers of rows; other rows are alone.
        diagonal: (n,) the diagonal of A.
        block: takes (groups, k) numbers, gives (groups, k, k): these blocks of A.
        unit: (n,) the vector u.
        bound: A_GG has no eigenvalue below `bound` × (1 - ‖u_G‖²): against cancellation, smaller ones count as that.
    """
    solved = right / np.maximum(diagonal, bound * _free(unit[:, None]))[:, None]
    for numbers in several:
        size = numbers.shape[1]
        most = max(1, STACK_VALUES // size**2)
        for start in range(0, len(numbers), most):
            some = numbers[start : start + most]
            solved[some] = _solved(block(some), right[some], bound * _free(unit[some]))
    return solved


def solve_differences(
    rows: np.ndarray, right: np.ndarray, several: Sequence[np.ndarray], *, unit: np.ndarray, bound: float
) -> np.ndarray:
    """The same for A = I - uuᵀ - BBᵀ with B = `rows`, (n, D).

    A group with more records than D is solved as e = r + C (I - CᵀC)⁻¹ Cᵀ r with C = [u, B] (Woodbury's identity).
    """

    def block(numbers: np.ndarray) -> np.ndarray:
        of_group, units = rows[numbers], unit[numbers]
        product = of_group @ of_group.swapaxes(-1, -2)
        return np.eye(numbers.shape[-1]) - product - units[..., :, None] * units[..., None, :]

    columns = rows.shape[1] + 1
    small = [numbers for numbers in several if numbers.shape[1] <= columns]
    diagonal = 1 - unit**2 - np.einsum("ij,ij->i", rows, rows)
    solved = solve_groups(right, small, diagonal=diagonal, block=block, unit=unit, bound=bound)
    for numbers in (group for groups in several if groups.shape[1] > columns for group in groups):
        of_group = np.column_stack([unit[numbers], rows[numbers]])
        middle, product = np.eye(columns) - of_group.T @ of_group, of_group.T @ right[numbers]
        inner = _solved(middle[None], product[None], bound * _free(unit[numbers][None]))[0]
        solved[numbers] = right[numbers] + of_group @ inner
    return solved


def _free(units: np.ndarray) -> np.ndarray:
    """1 - ‖u_G‖² of each row of `units`; not 0 even if a group has nearly all weight."""
    return np.maximum(1 - (units**2).sum(axis=-1), 1e-15)


def _solved(blocks: np.ndarray, right: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Solves blocks (g, k, k) for right (g, k, outputs); eigenvalues below `least` (g,) count as `least`."""
    if blocks.shape[-1] > STACKED:
        with contextlib.suppress(LinAlgError):  # not positive to float64's precision: eigenvalues are needed
            return np.stack(list(_by_cholesky(blocks, right)))
    values, vectors = np.linalg.eigh(blocks)
    values = np.maximum(values, least[:, None])
    return vectors @ (vectors.swapaxes(-1, -2) @ right / values[..., None])


def _by_cholesky(blocks: np.ndarray, right: np.ndarray) -> Iterator[np.ndarray]:
    for block, of_block in zip(blocks, right, strict=True):
        yield cho_solve(cho_factor(block, lower=True, check_finite=False), of_block, check_finite=False)
