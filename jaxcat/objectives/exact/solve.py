"""The exact solver of linear heads: pooled features and labels in, kernel, bias and leave-one-out logits out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcat.errors import DataError
from jaxcat.objectives.exact.calibration import Calibration, calibrate
from jaxcat.objectives.exact.choice import ALL, Choice, rank, relative
from jaxcat.objectives.exact.decomposition import Fit
from jaxcat.objectives.exact.judged import judged_problem
from jaxcat.objectives.exact.large import fit_beside
from jaxcat.objectives.exact.parts import ALONE, Part, Processes
from jaxcat.objectives.exact.problem import Problem, problem_of_some
from jaxcat.objectives.exact.room import room_for_range
from jaxcat.objectives.exact.scaling import read_rows, rows_at_a_time, scale_parts
from jaxcat.objectives.exact.stratified import subset
from jaxcat.objectives.exact.work import Work
from jaxcat.wording import counted, first_to_last

# With more records and more columns, a subset ranks ranges and penalties, and there is no eigendecomposition of all.
# 3,000 records, 20,096 columns and 6 ranges take 33 s of one core with eigendecompositions of all, 16 s in this way.
LIMIT = 2500
# Records of that subset: so many of each class, between these two.
OF_CLASS, LEAST_RANKED, MOST_RANKED = 20, 2000, 4000
NO_SLOPE = "Leave-one-out scores do not rise with the right class, so the head answers with the classes' frequencies."
SMALLEST = "The penalty {:.3g} is the smallest that is tried on these blocks, {}, as is usual with few images."
LARGEST = (
    "The penalty {:.3g} is the largest that is tried on these blocks, {}: the leave-one-out error is least where "
    "scores hardly depend on the features."
)
WITH_OFFSETS = "An offset per class was added, since the classes differ in size and it lowers the log loss."


class Solution(NamedTuple):
    """An exact head.

    Attributes:
        blocks: the chosen range.
        penalty: what ‖w‖² of the scaled features is multiplied by; given as `penalty`, it gives the same head.
        kernel: float64 (D, outputs), on the unscaled features of the range's parts side by side, in the order of
            `parts`; scales and slope are folded in.
        bias: float64 (outputs,), with slope and offsets folded in.
        leave_one_out: float64 (N, outputs), logits of each record from a fit without its group, with slope and offsets.
        slope: what scores are multiplied by; 0 if no positive slope fits, and the head gives class frequencies.
        offsets: (outputs,) what is added then; None: nothing.
        candidates: JSON-able rows of the table: `blocks`, `columns` (that are not constant), `penalty`,
            `relative_penalty` (to the mean diagonal of the centred Gram matrix), `squared_error` and `accuracy`
            (leave-one-out, before slope and offsets: with offsets, the answers of `leave_one_out` may be others),
            `records`. If a subset of the records ranked the ranges, the last row is the chosen range on all records.
        notes: sentences to print.
    """

    blocks: tuple[str, ...]
    penalty: float
    kernel: np.ndarray
    bias: np.ndarray
    leave_one_out: np.ndarray
    slope: float
    offsets: np.ndarray | None
    candidates: list[dict[str, Any]]
    notes: tuple[str, ...]


def solve_head(
    parts: Sequence[Part],
    labels: np.ndarray,
    *,
    classes: int,
    ranges: Sequence[tuple[str, ...]],
    groups: np.ndarray | None = None,
    class_weights: np.ndarray | None = None,
    names: Sequence[str] = (),
    penalty: float = 0.0,
    seed: int = 0,
    processes: Processes = ALONE,
    progress: Callable[[str], None] = lambda words: None,
) -> Solution:
    """Solves the linear head of the least weighted sum of squares + penalty × ‖w‖², intercept not penalised.

    Targets are 1 for the class and -1 for the others: for two classes one output, of the second, else one per class.
    Each part is centred and divided by the root-mean-square norm of its centred rows; w are the coefficients of the
    result. Range and penalty have the least leave-one-out squared error. Slope and offsets make logits of the scores.

    Args:
        parts: the pooled features of train, all rows of all blocks that the ranges name.
        labels: int (N,).
        classes: number of classes.
        ranges: lists of block names to choose from.
        groups: int (N,), equal for records that are left out together; None: each record alone. If every class is
            in one group, records are left out alone.
        class_weights: (classes,), the weight of a record of each class, above 0; None: 1.
        names: of the classes, for notes; empty: their numbers.
        penalty: above 0; 0: chosen.
        seed: of the subset that ranks ranges if there are many records, and of the folds that judge offsets.
        processes: this process among those that call this together, with the same arguments.
        progress: called often, with a few words on what is being done.

    Raises:
        DataError: fewer than two records, features that are not finite, or too little memory.
    """
    if len(labels) < 2:
        raise DataError(f"train has {counted(len(labels), 'record')}; an exact head needs 2 or more")
    problem, notes = judged_problem(labels, classes=classes, groups=groups, class_weights=class_weights, names=names)
    options: dict[str, Any] = {"penalty": penalty, "processes": processes, "progress": progress}
    work, fit, rows, chosen = _choose(parts, problem, ranges=ranges, seed=seed, notes=notes, **options)
    blocks, scores = tuple(chosen["blocks"]), problem.scores(fit.left_out)
    made = _calibrated(work, scores, classes=classes, seed=seed)
    notes += _notes_on(work, blocks, chosen, given=penalty > 0) + _notes_on_calibration(made)
    kernel, bias = _unscaled(work, blocks, fit, made)
    return Solution(
        blocks=blocks,
        penalty=chosen["penalty"],
        kernel=kernel,
        bias=bias,
        leave_one_out=made.logits(scores),
        slope=made.slope,
        offsets=made.offsets,
        candidates=rows,
        notes=tuple(notes),
    )


def _choose(
    parts: Sequence[Part],
    problem: Problem,
    *,
    ranges: Sequence[tuple[str, ...]],
    penalty: float,
    seed: int,
    processes: Processes,
    progress: Callable[[str], None],
    notes: list[str],
) -> tuple[Work, Fit, list[dict[str, Any]], dict[str, Any]]:
    """The work, the fit, the rows of the table, and the chosen row."""
    records = len(problem.labels)
    columns = [sum(part.width for part in parts if part.block in blocks) for blocks in ranges]
    named = [part for part in parts if any(part.block in blocks for blocks in ranges)]

    def work_on(some: Sequence[Part], of: Problem) -> Work:
        scaled = scale_parts(some, of.roots, processes=processes, progress=progress)
        return Work(of, scaled, processes, progress)

    most = min(MOST_RANKED, max(LEAST_RANKED, OF_CLASS * problem.targets.shape[1]))
    if records <= most or max(min(records, width) for width in columns) <= LIMIT:
        work = work_on(named, problem)
        choice = rank(work, ranges, penalty=penalty, with_fit=True)
        assert choice.fit is not None
        return work, choice.fit, choice.rows, choice.rows[choice.winner]
    for blocks, width in zip(ranges, columns, strict=True):  # any of them may be chosen
        widest = max(part.width for part in named if part.block in blocks)
        room_for_range(problem, processes, columns=width, widest=widest, limit=LIMIT)
    first = Choice([], 0, None)
    if len(ranges) > 1 or not penalty:
        numbers = subset(problem.labels, problem.groups, most=most, seed=seed)
        progress(f"reading {len(numbers):,} records")
        on_some = work_on(_held(named, numbers), problem_of_some(problem, numbers))
        first = rank(on_some, ranges, penalty=penalty, with_fit=False)
        notes.append(
            f"Ranges and penalties were ranked on {len(numbers):,} of the {records:,} records; the chosen range was "
            "solved on all."
        )
    blocks = ranges[first.winner]
    work = work_on([part for part in named if part.block in blocks], problem)
    start = penalty or first.rows[first.winner]["relative_penalty"] * work.unit(work.scaled.kept(blocks))
    row, fit = fit_beside(work, blocks, penalty=start, given=penalty > 0, limit=LIMIT)
    return work, fit, [*first.rows, row], row


def _held(parts: Sequence[Part], numbers: np.ndarray) -> list[Part]:
    """Parts of these records alone, in memory."""

    def reader(part: Part) -> Callable[[int, int], np.ndarray]:
        rows = np.empty((len(numbers), part.width), np.float32)
        read_rows(part, numbers, out=rows)
        return lambda start, stop: rows[start:stop]

    return [part._replace(read=reader(part)) for part in parts]


def _notes_on(work: Work, blocks: tuple[str, ...], chosen: dict[str, Any], *, given: bool) -> list[str]:
    """Sentences on parts that were left out, and on a penalty at the end of the grid."""
    kept, notes = work.scaled.kept(blocks), []
    constant = [p for i, p in enumerate(work.scaled.parts) if p.block in blocks and i not in kept]
    if not kept:
        notes.append("All features are the same for every record of train.")
    elif constant:
        names = ", ".join(f"{part.block} ({part.statistic})" for part in constant)
        notes.append(f"Left out, since they are the same for every record of train: {names}.")
    if kept and not given:
        least, most = (relative(end) * (1 + tolerance) for end, tolerance in ((ALL[0], 1e-6), (ALL[-1], -1e-6)))
        if chosen["relative_penalty"] <= least:
            notes.append(SMALLEST.format(chosen["penalty"], first_to_last(blocks)))
        elif chosen["relative_penalty"] >= most:
            notes.append(LARGEST.format(chosen["penalty"], first_to_last(blocks)))
    return notes


def _calibrated(work: Work, scores: np.ndarray, *, classes: int, seed: int) -> Calibration:
    """Slope and offsets for leave-one-out scores (N, outputs), in every process those of process 0."""
    work.progress("fitting probabilities")
    problem, outputs = work.problem, scores.shape[1]
    weights, groups = problem.roots**2, problem.groups
    made = calibrate(scores, problem.labels, classes=classes, weights=weights, groups=groups, seed=seed)
    given = made.offsets is not None
    offsets = made.offsets if made.offsets is not None else np.zeros(outputs)
    sent = work.processes.from_owner(np.array([made.slope, given, *offsets]))
    return Calibration(float(sent[0]), sent[2:] if sent[1] else None)


def _notes_on_calibration(made: Calibration) -> list[str]:
    if made.slope == 0:
        return [NO_SLOPE]
    return [] if made.offsets is None else [WITH_OFFSETS]


def _unscaled(work: Work, blocks: tuple[str, ...], fit: Fit, made: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias on the features as they are, with slope and offsets.

    From a dual fit, each process reads its slice of the records and the kernel's rows are summed over processes.
    """
    scaled, problem = work.scaled, work.problem
    kept, outputs = scaled.kept(blocks), problem.targets.shape[1]
    found = fit.primal
    if found is None and fit.dual is not None:
        found = np.zeros((scaled.columns(kept), outputs))
        for numbers, _ in problem.groups.batches(rows_at_a_time(len(found)), work.processes):
            found += scaled.rows(kept, numbers).T @ fit.dual[numbers]
        found = work.processes.sum(found)
    assert found is not None
    kernel, bias, at = [], made.slope * problem.means + (0.0 if made.offsets is None else made.offsets), 0
    for i, part in enumerate(scaled.parts):
        if part.block not in blocks:
            continue
        rows = np.zeros((part.width, outputs))
        if i in kept:
            rows = made.slope * found[at : at + part.width] / scaled.scales[i]
            at += part.width
        bias = bias - scaled.means[i] @ rows
        kernel.append(rows)
    return np.concatenate(kernel), bias
