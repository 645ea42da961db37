"""Which blocks: every range at every image size, judged by leave-one-out; the best are solved on all records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcat.objectives.choice_interval import ChosenAccuracy, accuracy_of_choice
from jaxcat.objectives.exact.every_range import POOLINGS, Candidate, Judged, every_range, judge
from jaxcat.objectives.exact.judged import judged_problem
from jaxcat.objectives.exact.part_grams import PartGrams, part_grams
from jaxcat.objectives.exact.parts import Part
from jaxcat.objectives.exact.problem import Problem, problem_of_some
from jaxcat.objectives.exact.solve import Solution, solve_head
from jaxcat.objectives.exact.stratified import subset
from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.study.collect import Collected
from jaxcat.training.epoch import class_weights
from jaxcat.wording import first_to_last

# Up to FULL records every candidate is judged on all of them. Above, a seeded half ranks them, of at least LEAST and at
# most MOST records: 132 decompositions of 2,000 records take 1.5 minutes on 2 idle cores, of 1,000 records 12 s.
FULL, LEAST, MOST = 1500, 1000, 2000
# Up to so many records, so many of the best candidates are then solved on all records; above, the best one.
IN_FULL = {2500: 10, 5000: 3}

Progress = Callable[[str], None]


class AtSize(NamedTuple):
    """What leave-one-out found at one image size."""

    size: int
    judged: Judged


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table of ranges, with the penalty that suits it best.

    Attributes:
        size: pixels a side of the images.
        candidate: blocks and pooling.
        penalty: as `optim.penalty` takes it.
        squared_error, accuracy: by leave-one-out on `records` records.
        low, high: 95 % interval of the accuracy of this range alone; the choice among ranges is not in it.
        milliseconds: for one image through the network up to the last block; None if it was not measured.
        solved: whether this is of all records, after a ranking on some.
    """

    size: int
    candidate: Candidate
    penalty: float
    squared_error: float
    accuracy: float
    low: float
    high: float
    records: int
    milliseconds: float | None
    solved: bool = False

    def describe(self, *, sized: bool = False) -> str:
        words = f"{first_to_last(self.candidate.blocks)}, {self.candidate.pool}"
        return f"{words}, {self.size} px" if sized else words

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in vars(self).items() if name != "candidate"}
        blocks = self.candidate.blocks
        return {"first": blocks[0], "last": blocks[-1], "pool": self.candidate.pool} | fields


class Records(NamedTuple):
    """The records that are judged.

    Attributes:
        problem: of all N train records.
        numbers: int (n,), those that rank; all of them up to `FULL`.
        some: the problem of these.
        notes: what leave-one-out cannot judge.
    """

    problem: Problem
    numbers: np.ndarray
    some: Problem
    notes: list[str]

    @property
    def all_rank(self) -> bool:
        return len(self.numbers) == len(self.problem.labels)


def records_of(collected: Collected) -> Records:
    """The problem of train's records, and those that rank."""
    labels, classes = collected.splits["train"].labels, len(collected.classes)
    problem, notes = judged_problem(
        labels,
        classes=classes,
        groups=collected.groups["train"],
        class_weights=weights_of(collected),
        names=collected.classes,
    )
    count = len(labels)
    if count <= FULL:
        return Records(problem, np.arange(count), problem, notes)
    most = min(MOST, max(LEAST, count // 2))
    numbers = subset(labels, problem.groups, most=most, seed=collected.config.seed)
    return Records(problem, numbers, problem_of_some(problem, numbers), notes)


def weights_of(collected: Collected) -> np.ndarray | None:
    """The weight of each class, or None: all the same."""
    if collected.config.optim.class_weight != "balanced":
        return None
    return class_weights(collected.splits["train"].labels, len(collected.classes))


def rank_at(collected: Collected, records: Records, *, progress: Progress) -> tuple[AtSize, PartGrams]:
    """Judges every range × pooling × penalty at one image size."""
    grams = part_grams(collected.parts["train"], records.numbers, progress=progress)
    return AtSize(collected.size, judge(grams, records.some, every_range(grams), progress=progress)), grams


def rows_of(found: Sequence[AtSize], records: Records, costs: dict[int, dict[str, float]]) -> list[Row]:
    """The table: each candidate at each size with its best penalty, least squared error first."""
    rows = []
    for size, judged in found:
        errors, best = judged.errors(), judged.best_penalties()
        for place, candidate in enumerate(judged.candidates):
            hits = judged.right[place, best[place]]
            low, high = accuracy_interval(hits, records.some.groups.of_record)
            rows.append(
                Row(
                    size=size,
                    candidate=candidate,
                    penalty=float(judged.penalties[place, best[place]]),
                    squared_error=float(errors[place, best[place]]),
                    accuracy=float(hits.mean()),
                    low=low,
                    high=high,
                    records=len(hits),
                    milliseconds=costs.get(size, {}).get(candidate.blocks[-1]),
                )
            )
    return sorted(rows, key=lambda row: (row.squared_error, len(row.candidate.blocks), row.size))


def front_of(rows: Sequence[Row]) -> list[Row]:
    """The rows that no cheaper or equally cheap row equals in accuracy, the cheapest first.

    Of the ranges that end with the same block at the same size, only the one with the least squared error is compared.
    """
    ends: dict[tuple[int, str], Row] = {}
    for row in rows:
        if row.milliseconds is not None:
            key = (row.size, row.candidate.blocks[-1])
            if key not in ends or row.squared_error < ends[key].squared_error:
                ends[key] = row
    front: list[Row] = []
    for row in sorted(ends.values(), key=lambda row: (row.milliseconds or 0.0, -row.accuracy)):
        if not front or row.accuracy > front[-1].accuracy:
            front.append(row)
    return front


def choice_of(found: Sequence[AtSize], records: Records, *, seed: int) -> ChosenAccuracy:
    """The accuracy of the best of all candidates at all sizes and penalties, and by how much choosing raises it."""
    squared = np.concatenate([each.judged.squared.reshape(-1, len(records.numbers)) for each in found])
    right = np.concatenate([each.judged.right.reshape(-1, len(records.numbers)) for each in found])
    winner = int(squared.sum(axis=1, dtype=np.float64).argmin())
    return accuracy_of_choice(squared, right, winner, groups=records.some.groups.of_record, seed=seed)


def solved(collected: Collected, candidate: Candidate, *, progress: Progress) -> Solution:
    """The head of one candidate on all train records, with the penalty that leave-one-out on them chooses."""
    statistics = POOLINGS[candidate.pool]
    parts: list[Part] = [part for part in collected.parts["train"] if part.statistic in statistics]
    return solve_head(
        parts,
        collected.splits["train"].labels,
        classes=len(collected.classes),
        ranges=[candidate.blocks],
        groups=collected.groups["train"],
        class_weights=weights_of(collected),
        names=collected.classes,
        seed=collected.config.seed,
        progress=progress,
    )


def in_full(count: int) -> int:
    """How many of the best candidates are solved on all of `count` records after a ranking on some."""
    return next((number for most, number in IN_FULL.items() if count <= most), 1)
