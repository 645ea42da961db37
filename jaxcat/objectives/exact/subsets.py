"""Heads solved on seeded, stratified subsets of the records: the measurements of a learning curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxcat.objectives.exact.decomposition import DualEigen
from jaxcat.objectives.exact.every_range import Candidate, Judged, judge
from jaxcat.objectives.exact.part_grams import PartGrams, Selection
from jaxcat.objectives.exact.problem import Problem, answers, problem_of_some
from jaxcat.objectives.exact.stratified import subset
from jaxcat.objectives.learning_curve import Measured

FEWEST, MOST = 3, 10  # subsets of one size
SHARE = 3  # so many times the number of records are in the subsets of one size together, within these bounds


def measure_subsets(
    grams: PartGrams,
    problem: Problem,
    candidates: Sequence[Candidate],
    sizes: Sequence[int],
    *,
    seed: int,
    progress: Callable[[str], None] = lambda words: None,
) -> Iterator[Measured]:
    """Yields, for each size, the answers of the heads of several subsets for the records that are not in them.

    Blocks, pooling and penalty are chosen by leave-one-out within each subset: if they were chosen on all records, they
    would suit small subsets too well, and the curve would be too flat.

    Args:
        problem: of all records of the matrices.
        candidates: to choose from.
        seed: of the subsets.
    """
    count = grams.records
    for place, size in enumerate(sizes):
        wrong, answered, total = [], [], 0
        for number in range(min(MOST, max(FEWEST, SHARE * count // size))):
            progress(f"subset {number + 1} of {size:,} images")
            chosen = subset(problem.labels, problem.groups, most=size, seed=seed + 1000 * place + number)
            right, others = _answers(grams, problem, candidates, chosen, progress=lambda words: progress("subset"))
            if not len(others):
                continue
            mask = np.zeros(count, bool)
            mask[others] = True
            answered.append(mask)
            wrong.append(mask.copy())
            wrong[-1][others] = ~right
            total += len(chosen)
        if answered:
            yield Measured(total / len(answered), np.array(wrong), np.array(answered))


def _answers(
    grams: PartGrams,
    problem: Problem,
    candidates: Sequence[Candidate],
    chosen: np.ndarray,
    *,
    progress: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the head of the records `chosen` is right for each of the others, and the numbers of these."""
    of_some = problem_of_some(problem, chosen)
    judged = judge(grams, of_some, candidates, numbers=chosen, progress=progress)
    winner, penalty = judged.winner()
    parts, selection = candidates[winner].parts, Selection(grams, of_some, chosen)
    fit = DualEigen(selection.gram(parts), of_some).fit(judged.penalties[winner, penalty])
    assert fit.dual is not None
    outside = ~np.isin(problem.groups.of_record, problem.groups.of_record[chosen])  # subsets may have parts of groups
    others = np.flatnonzero(outside)
    scores = selection.scores_of_others(parts, others, fit.dual)
    return answers(scores) == problem.labels[others], others


def measured_by_leaving_out(judged: Judged, candidates: Sequence[Candidate]) -> Measured:
    """The answers of the best of `candidates`, which are among the judged ones, for every record left out."""
    known = {(each.blocks, each.pool): place for place, each in enumerate(judged.candidates)}
    places = [known[each.blocks, each.pool] for each in candidates]
    winner, penalty = judged.of(places).winner()
    right = judged.right[places[winner], penalty]
    return Measured(float(len(right)), ~right[None], np.ones((1, len(right)), bool))
