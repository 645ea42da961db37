"""One range on all records, where the records or columns are too many to try every range and penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcat.errors import DataError
from jaxcat.objectives.exact.choice import Work, relative, row_of, shared
from jaxcat.objectives.exact.cholesky import DualCholesky, PrimalCholesky
from jaxcat.objectives.exact.decomposition import DualEigen, Fit, PrimalEigen
from jaxcat.objectives.exact.gram import dual_gram, primal_gram
from jaxcat.objectives.exact.scaling import BLOCK_BYTES
from jaxcat.system import memory


def fit_beside(
    work: Work, blocks: tuple[str, ...], *, penalty: float, given: bool, limit: int
) -> tuple[dict[str, Any], Fit]:
    """The range's row of the table, and its fit, of the best among `penalty` and its two neighbours.

    Args:
        penalty: what a subset of the records chose; if it is `given`, neighbours are not tried.
        limit: with more records and columns than this, every penalty takes a Cholesky decomposition.
    """
    kept = work.scaled.kept(blocks)
    solver = _solver(work, kept, limit)
    best: tuple[np.ndarray, float, Fit] | None = None
    for tried in [penalty] if given else [penalty * relative(step) for step in (-1, 0, 1)]:
        work.progress(f"solving with penalty {tried:.3g}")
        fit = solver.fit(tried)
        if fit.dual is not None:
            fit = shared(fit, work, owner=0)
        averages = work.problem.averages(work.problem.sums(fit.left_out))
        if best is None or averages[0] < best[0][0]:
            best = averages, tried, fit
    assert best is not None
    return row_of(blocks, work, kept, best[0], best[1]), best[2]


def _solver(work: Work, kept: Sequence[int], limit: int) -> DualEigen | PrimalEigen | DualCholesky | PrimalCholesky:
    problem, processes, progress = work.problem, work.processes, work.progress
    records, columns = len(problem.labels), work.scaled.columns(kept)
    if columns >= records:
        widest = max(work.scaled.parts[i].width for i in kept)
        # Without groups of several records nothing but the matrix and one part is held.
        check_memory(work, 8 * records * (records * (1 if processes.count == 1 else 3) + 2 * widest))
        gram = dual_gram(work.scaled, kept, processes=processes, progress=progress)
        return (DualEigen if records <= limit else DualCholesky)(gram, problem)
    largest = max((several.shape[1] for several in problem.groups.whole().several), default=1)
    rows = 3 * max(BLOCK_BYTES, 8 * columns * largest)
    copies = (1 if columns > limit else 6) + (0 if processes.count == 1 else 2)
    check_memory(work, 8 * columns**2 * copies + rows)
    options: dict[str, Any] = {"processes": processes, "progress": progress}
    gram, product = primal_gram(work.scaled, kept, problem.centred, groups=problem.groups, **options)
    primal = PrimalEigen if columns <= limit else PrimalCholesky
    return primal(gram, product, problem, scaled=work.scaled, kept=kept, **options)


def check_memory(work: Work, needed: float) -> None:
    """Raises if a matrix will not fit, in every process or in none.

    Raises:
        DataError: a process has no room for `needed` bytes beside what records and outputs take.
    """
    needed += 6 * work.problem.centred.nbytes
    room = memory.available()
    if work.processes.sum(np.array([float(needed > room)]))[0] > 0:
        raise DataError(
            f"an exact head on {len(work.problem.labels):,} records takes {needed / 1e9:.1f} GB of memory; "
            f"{room / 1e9:.1f} GB are free: use fewer records (--config.data.train_size=N) or fewer blocks "
            "(--config.model.cut=BLOCK or the :fast variant of the recipe)"
        )
