"""McNemar's exact test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from jaxcat.objectives.paired import mcnemar


def pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize("counts", [(50, 10, 2, 3), (0, 1, 0, 0), (9, 4, 4, 1), (5, 0, 40, 5), (100, 300, 260, 10)])
def test_p_is_that_of_the_binomial_test(counts):
    found = mcnemar(*pair(*counts))
    assert found[:4] == counts
    assert found.p == pytest.approx(binomtest(counts[1], counts[1] + counts[2]).pvalue, rel=1e-9)
    assert found.difference == pytest.approx((counts[1] - counts[2]) / sum(counts))


def test_equal_answers_do_not_differ():
    found = mcnemar(*pair(7, 0, 0, 2))
    assert found == (7, 0, 0, 2, 1.0, 0.0, (0.0, 0.0))


def test_the_interval_of_the_difference_is_as_wide_as_groups_make_it():
    first, second = (np.repeat(each, 5) for each in pair(60, 25, 10, 5))
    alone, together = mcnemar(first, second), mcnemar(first, second, groups=np.repeat(np.arange(100), 5))
    # Standard error of a mean of 100 differences, each of variance (25 + 10) / 100 - 0.15².
    half = 1.96 * np.sqrt((0.35 - 0.15**2) / 100)
    assert together.interval == pytest.approx((0.15 - half, 0.15 + half), abs=0.015)
    assert np.ptp(alone.interval) == pytest.approx(2 * half / 5**0.5, abs=0.01)
    assert together.p == alone.p
