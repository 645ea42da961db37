"""One range on all records, if there are too many records or columns to try every range and penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcat.errors import ConfigError
from jaxcat.objectives.exact.choice import relative, row_of, shared
from jaxcat.objectives.exact.cholesky import DualCholesky, NotPositiveError, PrimalCholesky
from jaxcat.objectives.exact.decomposition import DualEigen, Fit, PrimalEigen
from jaxcat.objectives.exact.gram import dual_gram, primal_gram
from jaxcat.objectives.exact.work import Work

HIGHER = 24  # half decades above the chosen penalty up to which larger ones are tried


def fit_beside(
    work: Work, blocks: tuple[str, ...], *, penalty: float, given: bool, limit: int
) -> tuple[dict[str, Any], Fit]:
    """The range's row of the table, and its fit, of the best among `penalty` and its two neighbours.

    If these are too small for float64 to decompose the Gram matrix, the next larger penalty that is not too small is
    taken.

    Args:
        penalty: what a subset of the records chose; if it is `given`, neighbours are not tried.
        limit: with more records and columns than this, every penalty takes a Cholesky decomposition.

    Raises:
        ConfigError: the given penalty is too small for float64 to decompose the Gram matrix.
    """
    kept = work.scaled.kept(blocks)
    solver = _solver(work, kept, limit)
    best: tuple[np.ndarray, float, Fit] | None = None
    steps = iter([0] if given else [-1, 0, 1, *range(2, HIGHER)])
    for tried in (penalty * relative(step) for step in steps):
        work.progress(f"solving with penalty {tried:.3g}")
        try:
            fit = solver.fit(tried)
        except NotPositiveError as error:
            if given:
                raise ConfigError(f"--config.optim.penalty={penalty}: too small: {error}; give a larger one") from error
            continue
        if fit.dual is not None:
            fit = shared(fit, work, owner=0)
        averages = work.problem.averages(work.problem.sums(fit.left_out))
        if best is None or averages[0] < best[0][0]:
            best = averages, tried, fit
        if tried > penalty:
            break
    assert best is not None  # a penalty that is a trillion times the chosen one is positive to float64's precision
    return row_of(blocks, work, kept, best[0], best[1]), best[2]


def _solver(work: Work, kept: Sequence[int], limit: int) -> DualEigen | PrimalEigen | DualCholesky | PrimalCholesky:
    problem, processes, progress = work.problem, work.processes, work.progress
    records, columns = len(problem.labels), work.scaled.columns(kept)
    if columns >= records:
        gram = dual_gram(work.scaled, kept, processes=processes, progress=progress)
        return DualEigen(gram, problem) if records <= limit else DualCholesky(gram, problem, processes=processes)
    options: dict[str, Any] = {"processes": processes, "progress": progress}
    gram, product = primal_gram(work.scaled, kept, problem.centred, groups=problem.groups, **options)
    primal = PrimalEigen if columns <= limit else PrimalCholesky
    return primal(gram, product, work=work, kept=kept)
