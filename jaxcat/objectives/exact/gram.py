"""Gram matrices of scaled features, in Fortran order, of which only the lower triangle is filled.

Z are the scaled features times the root of each record's weight, (N, D). The dual Gram matrix is ZZᵀ, the primal ZᵀZ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import blas

from jaxcat.objectives.exact.parts import Groups, Processes
from jaxcat.objectives.exact.scaling import Scaled, rows_at_a_time

TILE = 1024  # rows and columns of a tile when a triangle is copied


def dual_gram(
    scaled: Scaled, kept: Sequence[int], *, processes: Processes, progress: Callable[[str], None]
) -> np.ndarray:
    """ZZᵀ of the parts `kept`, (N, N). Each process reads all records of some of the parts; the matrix is summed."""
    records = len(scaled.roots)
    gram = np.zeros((records, records), order="F")
    for i in kept[processes.index :: processes.count]:
        progress(f"Gram matrix of {scaled.parts[i].block}")
        gram = add_products(gram, scaled.rows([i], np.arange(records)))
    return np.asfortranarray(processes.sum(gram))


def add_products(gram: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`gram` + RRᵀ of rows R, (N, width), in the memory of `gram`, (N, N), Fortran order; its lower triangle only."""
    most = rows_at_a_time(len(rows))  # columns at a time, so that a wide part of many records fits in memory
    for start in range(0, rows.shape[1], most):
        some = np.ascontiguousarray(rows[:, start : start + most])
        gram = blas.dsyrk(1.0, some.T, beta=1.0, c=gram, trans=1, lower=1, overwrite_c=1)
    return gram


def primal_gram(
    scaled: Scaled,
    kept: Sequence[int],
    targets: np.ndarray,
    *,
    groups: Groups,
    processes: Processes,
    progress: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray]:
    """ZᵀZ of the parts `kept`, (D, D), and Zᵀ `targets`, (D, outputs); each process reads its share of the records.

    Both are summed over processes.
    """
    columns, done = scaled.columns(kept), 0
    gram = np.zeros((columns, columns), order="F")
    product = np.zeros((columns, targets.shape[1]))
    for numbers, _ in groups.batches(rows_at_a_time(columns), processes) if columns else ():
        progress(f"Gram matrix: {done:,} of {len(targets):,} records")
        rows = scaled.rows(kept, numbers)
        gram = blas.dsyrk(1.0, rows.T, beta=1.0, c=gram, trans=0, lower=1, overwrite_c=1)
        product += rows.T @ targets[numbers]
        done += len(numbers)
    return np.asfortranarray(processes.sum(gram)), processes.sum(product)


def copy_triangle(matrix: np.ndarray, *, to_lower: bool) -> None:
    """Copies the upper triangle of a square matrix to the lower one, or the lower to the upper; the diagonal stays."""
    size = len(matrix)
    for row in range(0, size, TILE):
        for column in range(0, row + 1, TILE):
            lower = matrix[row : row + TILE, column : column + TILE]
            upper = matrix[column : column + TILE, row : row + TILE]
            if row > column and to_lower:
                lower[:] = upper.T
            elif row > column:
                upper[:] = lower.T
            else:
                filled = np.triu(lower) if to_lower else np.tril(lower)
                lower[:] = filled + filled.T - np.diag(np.diag(lower))
