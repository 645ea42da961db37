"""Every contiguous range of blocks × pooling × penalty, judged by exact leave-one-out on one set of Gram matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxcat.objectives.exact.choice import TIE, TINY, relative
from jaxcat.objectives.exact.decomposition import DualEigen
from jaxcat.objectives.exact.part_grams import PartGrams, Selection
from jaxcat.objectives.exact.problem import Problem, answers
from jaxcat.objectives.exact.threads import in_parallel
from jaxcat.wording import first_to_last

# Half decades of relative penalties: 12 of them, from 3e-4 to 1e2.
EXPONENTS = range(-7, 5)
POOLINGS = {"avg": ("avg",), "avg_std": ("avg", "std")}  # value of model.pool → statistics of a block


class Candidate(NamedTuple):
    """What a head may see.

    Attributes:
        blocks: a contiguous range.
        pool: a name of `POOLINGS`.
        parts: numbers of the parts, in the order of the blocks.
        columns: how many features these are.
    """

    blocks: tuple[str, ...]
    pool: str
    parts: tuple[int, ...]
    columns: int

    def describe(self) -> str:
        return f"{first_to_last(self.blocks)}, {self.pool}"


class Judged(NamedTuple):
    """Leave-one-out results of C candidates with P penalties on N records.

    Attributes:
        candidates: the C candidates.
        penalties: float64 (C, P), absolute, as `optim.penalty` takes them.
        squared: float32 (C, P, N): each record's squared residual × its weight, averaged over outputs.
        right: bool (C, P, N): whether the answer was the label.
        weight: the sum of all weights.
    """

    candidates: tuple[Candidate, ...]
    penalties: np.ndarray
    squared: np.ndarray
    right: np.ndarray
    weight: float

    def errors(self) -> np.ndarray:
        """(C, P): the leave-one-out squared error, which decides the choice."""
        return self.squared.sum(axis=2, dtype=np.float64) / self.weight

    def best_penalties(self) -> np.ndarray:
        """int (C,): number of each candidate's best penalty; of equal ones the largest."""
        errors = self.errors()
        return np.array([np.flatnonzero(row <= row.min() + TINY)[-1] for row in errors])

    def of(self, places: Sequence[int]) -> Judged:
        """The results of some of the candidates."""
        some = list(places)
        candidates = tuple(self.candidates[place] for place in some)
        return Judged(candidates, self.penalties[some], self.squared[some], self.right[some], self.weight)

    def winner(self) -> tuple[int, int]:
        """Numbers of the candidate and penalty of least error; of equal ones the fewest blocks, then columns."""
        best = self.best_penalties()
        errors = self.errors()[np.arange(len(best)), best]
        near = np.flatnonzero(errors <= errors.min() * (1 + TIE) + TINY)
        first = min(near, key=lambda i: (len(self.candidates[i].blocks), self.candidates[i].columns, i))
        return int(first), int(best[first])


def every_range(grams: PartGrams) -> tuple[Candidate, ...]:
    """All contiguous ranges of the blocks × `POOLINGS`; each is followed by those that begin with the same parts."""
    blocks = tuple(dict.fromkeys(part.block for part in grams.parts))
    spans = [blocks[i:j] for i in range(len(blocks)) for j in range(i + 1, len(blocks) + 1)]
    return candidates_of(grams, spans)


def candidates_of(grams: PartGrams, ranges: Sequence[tuple[str, ...]]) -> tuple[Candidate, ...]:
    """These ranges × the `POOLINGS` whose statistics there are."""
    known = {(part.block, part.statistic): i for i, part in enumerate(grams.parts)}
    widths = [part.width for part in grams.parts]
    found = []
    for pool, statistics in POOLINGS.items():
        for blocks in ranges:
            names = [(block, statistic) for block in blocks for statistic in statistics]
            if all(name in known for name in names):
                parts = tuple(known[name] for name in names)
                found.append(Candidate(tuple(blocks), pool, parts, sum(widths[i] for i in parts)))
    return tuple(found)


def judge(
    grams: PartGrams,
    problem: Problem,
    candidates: Sequence[Candidate],
    *,
    numbers: np.ndarray | None = None,
    progress: Callable[[str], None] = lambda words: None,
) -> Judged:
    """Solves every candidate with every penalty, each record left out with its group: one eigendecomposition each.

    Several threads share the candidates; one that begins with the parts of the candidate before it adds to that matrix.

    Args:
        problem: of the records `numbers` of the matrices (None: all), in that order.
        progress: called often, in this thread, with a few words; if it raises, the work ends.
    """
    selection = Selection(grams, problem, numbers)
    shape = (len(candidates), len(EXPONENTS), len(problem.labels))
    judged = Judged(
        tuple(candidates),
        np.array([[relative(e) * selection.unit(each.parts) for e in EXPONENTS] for each in candidates]),
        np.empty(shape, np.float32),
        np.empty(shape, bool),
        float((problem.roots**2).sum()),
    )

    def chain(places: Sequence[int]) -> Iterator[Callable[[], None]]:
        total = np.zeros((shape[2], shape[2]), order="F")
        before: tuple[int, ...] = ()
        for place in places:
            parts = candidates[place].parts
            selection.add(total, parts[len(before) :])
            before = parts
            yield functools.partial(_fill, judged, place, total.copy(order="F"), problem)

    chains = _chains(candidates)
    in_parallel([functools.partial(chain, places) for places in chains], total=len(candidates), progress=progress)
    return judged


def _fill(judged: Judged, place: int, gram: np.ndarray, problem: Problem) -> None:
    """Solves one candidate; takes the memory of `gram`."""
    solved = DualEigen(gram, problem)
    for number, penalty in enumerate(judged.penalties[place]):
        left_out = solved.fit(penalty).left_out
        judged.squared[place, number] = np.mean(left_out**2, axis=1)
        judged.right[place, number] = answers(problem.scores(left_out)) == problem.labels


def _chains(candidates: Sequence[Candidate]) -> list[list[int]]:
    """Places of candidates each of which begins with the parts of the one before it; the longest chain first."""
    chains: list[list[int]] = []
    for place, candidate in enumerate(candidates):
        last = candidates[chains[-1][-1]].parts if chains else None
        if last is not None and candidate.parts[: len(last)] == last:
            chains[-1].append(place)
        else:
            chains.append([place])
    return sorted(chains, key=len, reverse=True)
