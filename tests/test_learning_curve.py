"""The power law of a learning curve against a general optimiser, and the intervals where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from jaxcat.objectives.choice_interval import accuracy_of_choice
from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.objectives.learning_curve import EXPONENTS, Measured, fit_curve, fit_law, sizes_of

SIZES = [50, 100, 200, 400, 800]


def likelihood(a, b, c, errors, counts):
    fitted = np.clip(a + b * (np.array(SIZES) / SIZES[-1]) ** -c, 1e-9, 1 - 1e-9)
    return float((counts * (errors * np.log(fitted) + (1 - errors) * np.log1p(-fitted))).sum())


def likeliest(errors, counts) -> float:
    """The largest likelihood that a general optimiser finds, over the same exponents."""
    best = -np.inf
    for c in EXPONENTS:
        for start in ((0.05, 0.05), (0.3, 0.01), (0.001, 0.2)):
            found = minimize(
                lambda x, c=c: -likelihood(*x, c, errors, counts), start, bounds=[(0, 1), (0, 1)], method="L-BFGS-B"
            )
            best = max(best, -found.fun)
    return best


@pytest.mark.parametrize(
    "errors",
    [
        [0.30, 0.21, 0.16, 0.12, 0.10],  # falls
        [0.25, 0.25, 0.26, 0.25, 0.25],  # flat
        [0.10, 0.12, 0.13, 0.15, 0.17],  # rises: the law cannot, so the best is flat
        [0.20, 0.10, 0.05, 0.025, 0.0125],  # to 0 as 1 / n
        [0.02, 0.0, 0.01, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.5, 0.45, 0.43, 0.41, 0.40],
    ],
)
def test_law_has_the_largest_likelihood(errors):
    errors, counts = np.array(errors), np.array([800.0, 800, 800, 800, 700])
    law = fit_law(SIZES, errors, counts)
    assert law.asymptote >= 0
    assert law.gain >= 0
    found = likelihood(float(law.asymptote), float(law.gain), float(law.exponent), errors, counts)
    assert found >= likeliest(errors, counts) - 0.02


def test_fits_of_many_draws_equal_fits_of_each():
    random = np.random.default_rng(0)
    errors, counts = random.random((7, 5)) * 0.4, np.array([9.0, 8, 7, 6, 5])
    together = fit_law(SIZES, errors, counts)
    for place, row in enumerate(errors):
        alone = fit_law(SIZES, row, counts)
        assert [x[place] for x in together[:3]] == pytest.approx([float(x) for x in alone[:3]])


def measured(truth, random, records: int = 600) -> list[Measured]:
    """Answers that are wrong with the probability of the law; hard records stay hard at every size."""
    hardness = random.random(records)
    found = []
    for size in SIZES[:4]:
        error = truth(size)
        wrong = (0.6 * hardness + 0.4 * random.random((4, records))) < np.quantile(hardness, error) * 0.6 + 0.2
        wrong = np.array([row if error else ~row & row for row in wrong])
        found.append(Measured(size, wrong, random.random((4, records)) < 0.8))
    return found


def test_prediction_with_certain_answers():
    size, records = 100, 400
    everyone = np.ones((3, records), bool)
    sets = [Measured(s, np.tile(np.arange(records) < records * 8 / s, (3, 1)), everyone) for s in (size, 200, 400)]
    curve = fit_curve(sets, groups=np.arange(records))
    assert curve.predict(800).accuracy == pytest.approx(0.99, abs=0.003)
    assert curve.predict(200).accuracy == pytest.approx(0.96, abs=0.003)
    low, high = curve.predict(800).low, curve.predict(800).high
    assert low < 0.99 < high
    of_class = fit_curve(sets, groups=np.arange(records), records=np.arange(records) >= 100)
    assert of_class.predict(400).accuracy == 1.0 - float(of_class.law.error(400))
    assert of_class.predict(400).accuracy > 0.999


def test_groups_widen_the_interval():
    sets = measured(lambda size: 0.25, np.random.default_rng(0))
    alone = fit_curve(sets, groups=np.arange(600)).predict(400)
    sets = [Measured(m.size, np.repeat(m.wrong[:, :60], 10, axis=1), np.ones((4, 600), bool)) for m in sets]
    whole = fit_curve(sets, groups=np.arange(600) // 10).predict(400)
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


def test_noise_gives_a_flat_curve():
    random = np.random.default_rng(3)
    sets = [Measured(size, random.random((5, 800)) < 0.5, np.ones((5, 800), bool)) for size in SIZES]
    gain, low, high = fit_curve(sets, groups=np.arange(800)).gain(1600, above=800)
    assert low <= 0.005
    assert gain < 0.02
    assert high < 0.06


def test_sizes():
    assert sizes_of(800, least=60) == [141, 200, 283, 400, 566]
    assert sizes_of(50, least=60) == []


def test_interval_includes_the_choice():
    """Fifty candidates that guess: the best of them is no better than chance, and the interval says so."""
    random = np.random.default_rng(0)
    covered_plainly = covered = 0
    for _ in range(40):
        right = random.random((50, 300)) < 0.5
        squared = np.where(right, 0.9, 1.1).astype(np.float32)
        winner = int(squared.sum(axis=1).argmin())
        found = accuracy_of_choice(squared, right, winner)
        covered += found.low <= 0.5 <= found.high
        plain = accuracy_interval(right[winner])
        covered_plainly += plain[0] <= 0.5 <= plain[1]
        assert found.optimism > 0.02
    assert covered_plainly < 30
    assert covered >= 37


def test_one_candidate_has_no_optimism_and_groups_are_drawn_whole():
    random = np.random.default_rng(1)
    right = np.repeat(random.random((1, 40)) < 0.8, 10, axis=1)
    squared = (~right).astype(np.float32)
    alone = accuracy_of_choice(squared, right, 0)
    whole = accuracy_of_choice(squared, right, 0, groups=np.arange(400) // 10)
    assert alone.optimism < 0.005
    assert alone.accuracy == pytest.approx(right.mean(), abs=0.005)
    assert whole.high - whole.low > 2 * (alone.high - alone.low)
    assert whole.chosen.tolist() == [1.0]


def test_all_right_is_not_certain():
    right = np.ones((3, 50), bool)
    found = accuracy_of_choice(np.zeros((3, 50), np.float32), right, 0)
    assert found.accuracy == found.high == 1.0
    assert found.low < 0.95
