"""Two classifiers on the same records: is one of them better?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import bdtr

from jaxcat.objectives.bootstrap import drawn_sums
from jaxcat.objectives.intervals import ENDS


class Paired(NamedTuple):
    """What McNemar's test finds.

    Attributes:
        both, only_first, only_second, neither: how many records each pair of answers gets right.
        p: if both are equally good, the probability that the records on which one alone is right divide as unevenly, or
            more so; exact and two-sided. It assumes independent records.
        difference: accuracy of the first minus that of the second.
        interval: its 95 % interval, by a bootstrap over records or groups.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    difference: float
    interval: tuple[float, float]


def mcnemar(
    first_correct: np.ndarray, second_correct: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0
) -> Paired:
    """McNemar's exact test (Psychometrika 12, 1947) of two classifiers on the same N > 0 records.

    Args:
        first_correct, second_correct: bool (N,).
        groups: int (N,), equal for records of one group; for the interval only.
        seed: of the bootstrap.
    """
    first, second = np.asarray(first_correct, bool), np.asarray(second_correct, bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    # P(X <= k) of a binomial of probability 1/2: half of the two-sided p, unless both sides have equally many.
    tail = float(bdtr(min(only_first, only_second), discordant, 0.5)) if discordant else 1.0
    differences = first.astype(float) - second
    sums = drawn_sums(np.stack([differences, np.ones(len(first))], axis=1), groups, seed=seed)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], ENDS)
    return Paired(
        both=int((first & second).sum()),
        only_first=only_first,
        only_second=only_second,
        neither=int((~first & ~second).sum()),
        p=min(1.0, 2 * tail),
        difference=float(differences.mean()),
        interval=(float(low), float(high)),
    )
