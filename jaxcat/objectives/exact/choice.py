"""Range of blocks and penalty, chosen by leave-one-out squared error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcat.objectives.exact.decomposition import DualEigen, Fit, PrimalEigen
from jaxcat.objectives.exact.gram import dual_gram, primal_gram
from jaxcat.objectives.exact.room import room_for_ranking
from jaxcat.objectives.exact.work import Work
from jaxcat.wording import first_to_last

# Relative penalties are 10^(exponent / 2): first from 1e-4 to 1e2; if the best is at an end, the grid continues there,
# at most from 1e-8 to 1e6.
FIRST = range(-8, 5)
ALL = range(-16, 13)
# Errors that differ by no more, relatively or (of targets 1 and -1) absolutely, are equal, and the fewest blocks win.
TIE, TINY = 1e-6, 1e-12  # of penalties whose errors differ by no more than TINY, the largest wins


class Choice(NamedTuple):
    """The result of `rank`.

    Attributes:
        rows: one row of the table for each range; see `Solution.candidates`.
        winner: number of the chosen range.
        fit: the fit of the chosen range with its penalty, the same in every process; None if not asked for.
    """

    rows: list[dict[str, Any]]
    winner: int
    fit: Fit | None


def rank(work: Work, ranges: Sequence[tuple[str, ...]], *, penalty: float, with_fit: bool) -> Choice:
    """Finds each range's best penalty, unless `penalty` is given, and the best range; one eigendecomposition each.

    Ranges of at least as many columns as records use the dual Gram matrix, and are divided over the processes.
    """
    kept = [work.scaled.kept(blocks) for blocks in ranges]
    columns = [work.scaled.columns(some) for some in kept]
    dual = [width >= len(work.problem.labels) for width in columns]
    in_primal = sorted({i for some, is_dual in zip(kept, dual, strict=True) if not is_dual for i in some})
    room_for_ranking(
        work.problem,
        work.processes,
        dual=sum(dual),
        primal=work.scaled.columns(in_primal),
        largest=max((width for width, is_dual in zip(columns, dual, strict=True) if not is_dual), default=0),
    )
    grams = _segments(work, [some for some, is_dual in zip(kept, dual, strict=True) if is_dual])
    whole = None if all(dual) else _whole(work, in_primal)

    def solver(number: int) -> DualEigen | PrimalEigen:
        work.progress(f"solving {first_to_last(ranges[number])}")
        if whole is None or dual[number]:
            return DualEigen(_sum_of(grams, kept[number]), work.problem)
        return _primal(work, whole, kept[number])

    rows: list[dict[str, Any]] = []
    held: tuple[int, DualEigen | PrimalEigen] | None = None
    for number, blocks in enumerate(ranges):
        owner = number % work.processes.count
        unit = work.unit(kept[number])
        found = np.zeros((1 if penalty else len(ALL), 2))
        if not dual[number] or owner == work.processes.index:
            solved = solver(number)
            found = search(solved.averages, unit, penalty)
        else:
            solved = None
        if dual[number]:
            found = work.processes.from_owner(found, owner=owner)
        rows.append(_row(blocks, work, kept[number], found, penalty))
        if solved is not None and best_of(rows) == number:
            held = (number, solved)
        del solved  # so that its memory is free when the next one is made
    winner = best_of(rows)
    if not with_fit:
        return Choice(rows, winner, None)
    owner = winner % work.processes.count if dual[winner] else work.processes.index
    fit = None
    if owner == work.processes.index:
        fit = (held[1] if held and held[0] == winner else solver(winner)).fit(rows[winner]["penalty"])
    return Choice(rows, winner, shared(fit, work, owner=owner) if dual[winner] else fit)


def shared(fit: Fit | None, work: Work, *, owner: int) -> Fit:
    """A dual fit in every process, from the one of number `owner`."""
    empty = np.zeros_like(work.problem.centred)
    left_out, dual = (empty, empty) if fit is None or fit.dual is None else (fit.left_out, fit.dual)
    left_out, dual = work.processes.from_owner(np.stack([left_out, dual]), owner=owner)
    return Fit(left_out, dual=dual)


def search(averages: Callable[[Sequence[float]], np.ndarray], unit: float, penalty: float) -> np.ndarray:
    """Leave-one-out (squared error, accuracy) of each penalty of `ALL`, infinite if not tried; or of the given one.

    Args:
        averages: takes penalties, gives (penalties, 2).
        unit: what relative penalties are multiplied by.
        penalty: the only one to try; 0: search.
    """
    if penalty:
        return averages([penalty])
    found = np.full((len(ALL), 2), np.inf)

    def add(exponents: Sequence[int]) -> None:
        found[[ALL.index(exponent) for exponent in exponents]] = averages([relative(e) * unit for e in exponents])

    add(list(FIRST))
    while True:
        best = ALL[_largest_of_best(found)]
        beside = [e for e in (best - 1, best + 1) if e in ALL and np.isinf(found[ALL.index(e), 0])]
        if not beside:
            return found
        add(beside)


def _largest_of_best(found: np.ndarray) -> int:
    """Number of the penalty of least error, of (squared error, accuracy) of penalties in rising order."""
    return int(np.flatnonzero(found[:, 0] <= found[:, 0].min() + TINY)[-1])


def relative(exponent: float) -> float:
    return float(10 ** (exponent / 2))


def best_of(rows: Sequence[dict[str, Any]]) -> int:
    """Number of the row of least error; of equal ones, of the fewest blocks, then of the fewest columns."""
    least = min(row["squared_error"] for row in rows)
    near = [i for i, row in enumerate(rows) if row["squared_error"] <= least * (1 + TIE) + TINY]
    return min(near, key=lambda i: (len(rows[i]["blocks"]), rows[i]["columns"], i))


def _row(blocks: tuple[str, ...], work: Work, kept: Sequence[int], found: np.ndarray, penalty: float) -> dict[str, Any]:
    best, unit = _largest_of_best(found), work.unit(kept)
    chosen = penalty or relative(ALL[best]) * unit
    return row_of(blocks, work, kept, found[best], chosen)


def row_of(
    blocks: tuple[str, ...], work: Work, kept: Sequence[int], averages: np.ndarray, penalty: float
) -> dict[str, Any]:
    """A row of the table; see `Solution.candidates`."""
    return {
        "blocks": list(blocks),
        "columns": work.scaled.columns(kept),
        "penalty": penalty,
        "relative_penalty": penalty / work.unit(kept),
        "squared_error": float(averages[0]),
        "accuracy": float(averages[1]),
        "records": len(work.problem.labels),
    }


def _segments(work: Work, ranges: Sequence[Sequence[int]]) -> dict[tuple[int, ...], np.ndarray]:
    """The dual Gram matrices of parts that are in the same ranges: each range's is a sum of some of them."""
    members: dict[tuple[bool, ...], list[int]] = {}
    for i in sorted({i for some in ranges for i in some}):
        members.setdefault(tuple(i in some for some in ranges), []).append(i)
    return {
        tuple(parts): dual_gram(work.scaled, parts, processes=work.processes, progress=work.progress)
        for parts in members.values()
    }


def _sum_of(grams: dict[tuple[int, ...], np.ndarray], kept: Sequence[int]) -> np.ndarray:
    wanted = [gram for parts, gram in grams.items() if parts[0] in kept]
    total = wanted[0].copy(order="F")
    for gram in wanted[1:]:
        total += gram
    return total


class _Whole(NamedTuple):
    """The primal Gram matrix of these parts, and its right-hand side."""

    parts: Sequence[int]
    gram: np.ndarray
    product: np.ndarray


def _whole(work: Work, parts: Sequence[int]) -> _Whole:
    problem = work.problem
    options: dict[str, Any] = {"processes": work.processes, "progress": work.progress}
    return _Whole(parts, *primal_gram(work.scaled, parts, problem.centred, groups=problem.groups, **options))


def _primal(work: Work, whole: _Whole, kept: Sequence[int]) -> PrimalEigen:
    of_column = np.repeat(whole.parts, [work.scaled.parts[i].width for i in whole.parts])
    columns = np.flatnonzero(np.isin(of_column, kept))
    gram = np.asfortranarray(whole.gram[np.ix_(columns, columns)])
    return PrimalEigen(gram, whole.product[columns], work=work, kept=kept)
