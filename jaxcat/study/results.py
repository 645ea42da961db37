"""A study from the request to its results: passes, ranking, interval, curve, and single images."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat.objectives.choice_interval import ChosenAccuracy
from jaxcat.objectives.exact.part_grams import PartGrams, part_grams
from jaxcat.objectives.exact.problem import answers
from jaxcat.objectives.exact.solve import Solution
from jaxcat.objectives.exact.threads import in_parallel
from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.objectives.label_errors import Suspects
from jaxcat.study.collect import Collected, Interrupted, collect, studied
from jaxcat.study.cost import milliseconds
from jaxcat.study.curve import LearningCurve, curve_of, unpredicted
from jaxcat.study.images import Copies, Hard, hardest, labels_that_look_wrong, near_duplicates
from jaxcat.study.ranking import (
    AtSize,
    Records,
    Row,
    choice_of,
    front_of,
    in_full,
    rank_at,
    records_of,
    rows_of,
    solved,
)
from jaxcat.system.console import Console, said_steps
from jaxcat.wording import counted

ROWS_TOGETHER = 1024


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """An accuracy with its 95 % interval, on so many images."""

    accuracy: float
    low: float
    high: float
    count: int

    def describe(self) -> str:
        return f"{self.accuracy:.4f} (95 % interval {self.low:.3f} to {self.high:.3f}), {counted(self.count, 'image')}"


@dataclasses.dataclass(frozen=True)
class Results:
    """All that a study finds out.

    Attributes:
        config: of the pass that the winner comes from.
        collected: its records and features.
        rows: the table of ranges, least squared error first; after a ranking on some records, the rows that were then
            solved on all come first.
        front: the rows that no cheaper one equals in accuracy.
        winner: the chosen row.
        ranked_on: number of records that ranked.
        accuracy: of the winner by leave-one-out, less `optimism`; the interval includes the choice.
        optimism: see `ChosenAccuracy`.
        validation: of the winner; None if nothing is held out.
        chance: the share of the largest class in train.
        curve: the learning curve.
        suspects: train's labels by how wrong they look.
        copies: near duplicates and unusual images.
        hardest: pairs of classes.
        solution: the winner's head.
        notes: sentences on what limits the results.
        seconds: of each step.
    """

    config: ConfigDict
    collected: Collected
    rows: list[Row]
    front: list[Row]
    winner: Row
    ranked_on: int
    accuracy: Accuracy
    optimism: float
    validation: Accuracy | None
    chance: float
    curve: LearningCurve
    suspects: Suspects
    copies: Copies
    hardest: list[Hard]
    solution: Solution
    notes: list[str]
    seconds: dict[str, float]

    @property
    def learned(self) -> bool:
        """Whether the winner is better than the answer that is right most often."""
        return self.accuracy.low > self.chance and self.solution.slope > 0


class Clock:
    """Seconds of steps by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def done(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._since
        self._since = now


def run(
    config: ConfigDict, workdir: Path, sizes: Sequence[int], *, mesh: Mesh, console: Console, stop: Callable[[], int]
) -> Results:
    """Studies the data of a checked config at one or several image sizes.

    Raises:
        Interrupted: a signal came; the features that were computed are kept.
        JaxcatError: data or weights cannot be used.
    """
    clock = Clock()
    every: dict[int, Collected] = {}
    found: list[AtSize] = []
    costs: dict[int, dict[str, float]] = {}
    records: Records | None = None
    grams: tuple[int, PartGrams] | None = None
    for wanted in sizes or (0,):
        collected = collect(studied(config, wanted), workdir, mesh=mesh, console=console, stop=stop)
        every[collected.size] = collected
        clock.done("features")
        costs[collected.size] = milliseconds(collected, mesh=mesh, console=console)
        clock.done("timing")
        with said_steps(f"comparing ranges of blocks at {collected.size} px", console=console) as said:
            progress = _stopping(said, stop)
            records = records or records_of(collected)
            grams = None  # its memory is free before the next ones are made
            at_size, of_size = rank_at(collected, records, progress=progress)
            grams = collected.size, of_size
            found.append(at_size)
        clock.done("ranking")
    assert records is not None
    assert grams is not None
    with said_steps("solving the best heads, measuring the learning curve", console=console) as said:
        return analyse(every, found, records, grams, costs, clock=clock, progress=_stopping(said, stop))


def _stopping(said: Callable[[str], None], stop: Callable[[], int]) -> Callable[[str], None]:
    """The same progress, which ends the work if a signal has come."""

    def progress(words: str) -> None:
        said(words)
        if status := stop():
            raise Interrupted(status)

    return progress


def analyse(
    every: dict[int, Collected],
    found: Sequence[AtSize],
    records: Records,
    grams: tuple[int, PartGrams],
    costs: dict[int, dict[str, float]],
    *,
    clock: Clock,
    progress: Callable[[str], None],
) -> Results:
    """Everything after the ranking."""
    rows = rows_of(found, records, costs)
    choice = choice_of(found, records, seed=0)
    in_all, winner, solution = _in_full(every, rows, records, progress=progress)
    collected = every[winner.size]
    labels, classes = collected.splits["train"].labels, collected.classes
    predicted = answers(solution.leave_one_out)
    clock.done("solving in full")
    of_size = grams[1]
    judged = next(each.judged for each in found if each.size == winner.size)
    if grams[0] != winner.size:
        of_size = part_grams(collected.parts["train"], records.numbers, progress=progress)
    curve = curve_of(
        of_size,
        judged,
        records,
        backbone=collected.config.model.backbone,
        right=predicted == labels,
        classes=classes,
        seed=collected.config.seed,
        progress=progress,
    )
    clock.done("learning curve")
    accuracy = _accuracy(predicted == labels, choice, records)
    chance = float(np.bincount(labels).max() / len(labels))
    learned = accuracy.low > chance and solution.slope > 0
    copies = near_duplicates(collected.splits, collected.groups, collected.parts, progress=progress)
    clock.done("near duplicates")
    return Results(
        config=collected.config,
        collected=collected,
        rows=[*in_all, *rows],
        front=front_of(rows),
        winner=winner,
        ranked_on=len(records.numbers),
        accuracy=accuracy,
        optimism=choice.optimism,
        validation=_validation(collected, winner, solution),
        chance=chance,
        curve=curve if learned else unpredicted(curve),
        suspects=labels_that_look_wrong(solution.leave_one_out, labels, learned=learned),
        copies=copies,
        hardest=hardest(predicted, labels, classes),
        solution=solution,
        notes=list(dict.fromkeys([*records.notes, *solution.notes])),
        seconds=clock.seconds,
    )


def _in_full(
    every: dict[int, Collected], rows: Sequence[Row], records: Records, *, progress: Callable[[str], None]
) -> tuple[list[Row], Row, Solution]:
    """The best rows, solved on all records if only some ranked; the winner, and its head."""
    count = len(records.problem.labels)
    if records.all_rank:
        return [], rows[0], solved(every[rows[0].size], rows[0].candidate, progress=progress)
    best, solutions = rows[: in_full(count)], {}

    def solve(row: Row) -> None:
        solutions[row] = solved(every[row.size], row.candidate, progress=lambda words: None)

    if len(best) == 1:  # a large one: all threads of linear algebra work on it
        solutions[best[0]] = solved(every[best[0].size], best[0].candidate, progress=progress)
    else:
        steps = [functools.partial(solve, row) for row in best]
        in_parallel([functools.partial(iter, [step]) for step in steps], total=len(steps), progress=progress)
    in_all = [(_in_all(row, solutions[row], records), solutions[row]) for row in best]
    in_all.sort(key=lambda pair: pair[0].squared_error)
    return [row for row, _ in in_all], *in_all[0]


def _in_all(row: Row, solution: Solution, records: Records) -> Row:
    """The row with the figures of a solution on all records."""
    problem = records.problem
    hits = answers(solution.leave_one_out) == problem.labels
    low, high = accuracy_interval(hits, problem.groups.of_record)
    return dataclasses.replace(
        row,
        penalty=solution.penalty,
        squared_error=solution.candidates[-1]["squared_error"],
        accuracy=float(hits.mean()),
        low=low,
        high=high,
        records=len(hits),
        solved=True,
    )


def _accuracy(hits: np.ndarray, choice: ChosenAccuracy, records: Records) -> Accuracy:
    """The winner's accuracy less the optimism of the choice.

    If only some records ranked, the interval of the choice is for so few. The one for all records is narrower: that of
    the winner's answers, both ends lowered by the optimism.
    """
    count, measured = len(hits), float(hits.mean())
    accuracy = max(0.0, measured - choice.optimism)
    low, high = accuracy_interval(hits, records.problem.groups.of_record)
    low, high = low - choice.optimism, high
    if records.all_rank:
        low, high = min(low, choice.low), max(high - choice.optimism, choice.high)
    return Accuracy(accuracy, max(0.0, min(low, accuracy)), min(1.0, max(high, accuracy)), count)


def _validation(collected: Collected, winner: Row, solution: Solution) -> Accuracy | None:
    """The winner's accuracy on validation, which nothing was chosen by."""
    if "validation" not in collected.splits:
        return None
    split = collected.splits["validation"]
    known = {(part.block, part.statistic): part for part in collected.parts["validation"]}
    used = collected.parts["train"]
    parts = [known[used[i].block, used[i].statistic] for i in winner.candidate.parts]
    predicted = np.empty(len(split), np.int64)
    for start in range(0, len(split), ROWS_TOGETHER):
        stop = min(start + ROWS_TOGETHER, len(split))
        rows = np.hstack([np.asarray(part.read(start, stop), np.float64) for part in parts])
        predicted[start:stop] = answers(rows @ solution.kernel + solution.bias)
    hits = predicted == split.labels
    return Accuracy(float(hits.mean()), *accuracy_interval(hits, collected.groups["validation"]), len(split))
