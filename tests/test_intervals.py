"""Intervals of accuracies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from jaxcat.objectives.intervals import accuracy_interval


@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000])
def test_independent_records_have_the_interval_of_scipy(count):
    for right in {0, 1, count // 3, count - 1, count}:
        expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
        assert accuracy_interval(np.arange(count) < right) == pytest.approx(tuple(expected), abs=1e-12)
