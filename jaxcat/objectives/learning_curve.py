"""Would more images help: error by number of records, a power law fitted to it, and what it predicts.

The law is error(n) = a + b × n^-c with a, b ≥ 0, of the largest binomial likelihood of the error counts. Its interval
is by bootstrap: records are drawn again, groups whole, and at each size the subsets; the law is fitted to every draw. A
third of the draws leave out the smallest size, and a third the two smallest; if the law does not hold, these give
another prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcat.objectives.intervals import LEVEL

EXPONENTS = np.linspace(0.05, 1.5, 30)  # values of c that are tried
STEPS = 12  # of Fisher's scoring for a and b
LEAST_ERROR = 1e-6  # errors are kept this far from 0 and 1
DRAWS = 400
DROPPED = 2  # smallest sizes that draws go without, at most; three sizes are always kept


class Measured(NamedTuple):
    """What heads that were solved on subsets of one size answered.

    Attributes:
        size: mean number of records of a subset.
        wrong: bool (subsets, N), whether the answer for a record was wrong.
        answered: bool (subsets, N), whether the subset's head answered it: the record is not in the subset, or was left
            out.
    """

    size: float
    wrong: np.ndarray
    answered: np.ndarray

    def error(self, records: np.ndarray | slice = slice(None)) -> float:
        """The share of wrong answers, of all records or those that a bool mask (N,) selects."""
        return float((self.wrong & self.answered)[:, records].sum() / max(1, self.answered[:, records].sum()))


class Law(NamedTuple):
    """error(n) = asymptote + gain × (n / unit)^-exponent; all but `unit` are arrays of the same shape, one per fit."""

    asymptote: np.ndarray
    gain: np.ndarray
    exponent: np.ndarray
    unit: float

    def error(self, size: float) -> np.ndarray:
        return np.minimum(1.0, self.asymptote + self.gain * (size / self.unit) ** -self.exponent)


class Prediction(NamedTuple):
    """Accuracy with `size` records, and its 95 % interval."""

    size: int
    accuracy: float
    low: float
    high: float


class Curve(NamedTuple):
    """A learning curve.

    Attributes:
        law: fitted to all records; its arrays have shape ().
        draws: fitted to the draws; its arrays have shape (DRAWS,).
        effect: the variance of a measured error ÷ that of independent records: 1, or more if records of a group stay
            together.
        noise: (DRAWS,) standard normal numbers.
    """

    law: Law
    draws: Law
    effect: float
    noise: np.ndarray

    def predict(self, size: int) -> Prediction:
        """The accuracy that leave-one-out would measure on `size` records; chance in measuring it is included."""
        errors = self.draws.error(size)
        errors = np.clip(errors + self.noise * np.sqrt(self.effect * errors * (1 - errors) / size), 0.0, 1.0)
        edges = np.quantile(errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        accuracy = 1 - float(self.law.error(size))
        return Prediction(size, accuracy, min(accuracy, 1 - float(edges[1])), max(accuracy, 1 - float(edges[0])))

    def gain(self, size: int, *, above: int) -> tuple[float, float, float]:
        """How much more accurate `size` records make it than `above` do: the estimate and its 95 % interval."""
        draws = self.draws.error(above) - self.draws.error(size)
        edges = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(self.law.error(above) - self.law.error(size)), float(edges[0]), float(edges[1])


def sizes_of(records: int, *, least: int) -> list[int]:
    """Sizes of subsets, each √2 times the one before, the largest `records` / √2; none is below `least`.

    At most five: far below the number of records, error falls at another rate than the law's.
    """
    sizes = [round(records / 2 ** (step / 2)) for step in range(5, 0, -1)]
    return [size for size in sizes if size >= least]


def fit_law(sizes: Sequence[float], errors: np.ndarray, counts: np.ndarray) -> Law:
    """The laws of largest binomial likelihood.

    Args:
        sizes: (S,) numbers of records.
        errors: (…, S), shares of wrong answers.
        counts: (…, S) or (S,), of how many answers; only their proportions matter.
    """
    unit = float(max(sizes))
    powers = (np.asarray(sizes, float) / unit) ** -EXPONENTS[:, None]  # (exponents, S)
    errors = np.clip(np.asarray(errors, float), 0.0, 1.0)[..., None, :]
    counts = np.broadcast_to(np.asarray(counts, float), errors.shape[:-2] + errors.shape[-1:])[..., None, :]
    shape = np.broadcast_shapes(errors.shape, powers.shape)
    fitted = np.broadcast_to(np.clip(errors.mean(axis=-1, keepdims=True), 0.01, 0.99), shape)
    for _ in range(STEPS):
        asymptote, gain = _weighted_line(powers, errors, counts / (fitted * (1 - fitted)))
        fitted = np.clip(asymptote[..., None] + gain[..., None] * powers, LEAST_ERROR, 1 - LEAST_ERROR)
    likelihood = (counts * (errors * np.log(fitted) + (1 - errors) * np.log1p(-fitted))).sum(axis=-1)
    best = likelihood.argmax(axis=-1)[..., None]
    chosen = [np.take_along_axis(each, best, axis=-1)[..., 0] for each in (asymptote, gain)]
    return Law(chosen[0], chosen[1], EXPONENTS[best[..., 0]], unit)


def _weighted_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a, b ≥ 0 of the least weighted squares of y - a - b x, over the last axis."""
    s, sx, sxx = weights.sum(-1), (weights * x).sum(-1), (weights * x * x).sum(-1)
    sy, sxy, syy = (weights * y).sum(-1), (weights * x * y).sum(-1), (weights * y * y).sum(-1)
    spread = s * sxx - sx**2
    usable = spread > 1e-12 * s * sxx
    b = np.where(usable, (s * sxy - sx * sy) / np.where(usable, spread, 1.0), 0.0)
    a = (sy - b * sx) / s
    only_a, only_b = sy / s, np.maximum(sxy / sxx, 0.0)
    squares_a, squares_b = syy - only_a * sy, syy - 2 * only_b * sxy + only_b**2 * sxx
    take_a = squares_a <= squares_b  # where the free minimum lies outside, the minimum is on one of the two edges
    inside = (a >= 0) & (b >= 0)
    return np.where(inside, a, np.where(take_a, only_a, 0.0)), np.where(inside, b, np.where(take_a, 0.0, only_b))


def fit_curve(
    measured: Sequence[Measured], *, groups: np.ndarray, records: np.ndarray | None = None, seed: int = 0
) -> Curve:
    """The curve through what was measured at several sizes.

    Args:
        measured: at least two sizes, of the same N records.
        groups: int (N,), equal for records that are drawn together.
        records: bool (N,), those that count, such as the ones of a class; None: all.
        seed: of the draws.
    """
    counted = np.ones(len(groups), bool) if records is None else records
    random = np.random.default_rng(seed)
    _, of_record = np.unique(groups, return_inverse=True)
    together = int(of_record.max()) + 1
    times = random.multinomial(together, np.full(together, 1 / together), size=DRAWS)[:, of_record]
    times = times * counted.astype(np.float64)
    sizes, counts = [each.size for each in measured], []
    of_draws = np.empty((DRAWS, len(measured)))
    for place, each in enumerate(measured):
        answered = each.answered.astype(np.float64)
        subsets = len(answered)
        drawn = random.multinomial(subsets, np.full(subsets, 1 / subsets), size=DRAWS)
        wrong = drawn * (times @ (each.wrong & each.answered).T.astype(np.float64))
        total = drawn * (times @ answered.T)
        of_draws[:, place] = wrong.sum(axis=1) / np.maximum(total.sum(axis=1), 1e-9)
        counts.append((each.answered.any(axis=0) & counted).sum())
    errors = np.array([each.error(counted) for each in measured])
    last = np.clip(errors[-1], LEAST_ERROR, 1 - LEAST_ERROR)
    largest = len(groups) / together  # records of one group that all go together could not vary more
    effect = float(np.clip(of_draws[:, -1].var() * counts[-1] / (last * (1 - last)), 1.0, max(1.0, largest)))
    law = fit_law(sizes, errors, np.array(counts))
    return Curve(law, _law_of_draws(sizes, of_draws, np.array(counts)), effect, random.standard_normal(DRAWS))


def _law_of_draws(sizes: Sequence[float], errors: np.ndarray, counts: np.ndarray) -> Law:
    """The laws of draws (DRAWS, S); a third of them are without the smallest size, a third without the two smallest."""
    laws = []
    for fewer in range(DROPPED + 1):
        first = min(fewer, max(0, len(sizes) - 3))
        laws.append(fit_law(sizes[first:], errors[fewer :: DROPPED + 1, first:], counts[first:]))
    joined = [np.concatenate(each) for each in zip(*(law[:3] for law in laws), strict=True)]
    return Law(joined[0], joined[1], joined[2], laws[0].unit)
