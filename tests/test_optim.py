"""Learning rates: the course of one cycle, and what each block gets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import small

from jaxcat.training.optim import make_schedule


def one_cycle_by_hand(step: int, *, steps: int, rate: float) -> float:
    """Half a cosine from rate / 25 to rate over the first 30 % of the steps, then one to rate / 250,000."""
    top = int(0.3 * steps)
    if step < top:
        low, high, share = rate / 25, rate, step / top
    else:
        low, high, share = rate, rate / 25e4, (step - top) / (steps - top)
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2


def test_one_cycle_by_hand():
    optim = small.tiny_config().optim
    optim.schedule, optim.learning_rate = "one_cycle", 0.02
    schedule = make_schedule(optim, steps=50, steps_per_epoch=10)
    expected = [one_cycle_by_hand(step, steps=50, rate=0.02) for step in range(51)]
    np.testing.assert_allclose([schedule(step) for step in range(51)], expected, rtol=1e-4, atol=1e-9)
    assert max(expected) == expected[15] == 0.02


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_one_cycle_of_a_few_steps_is_finite_and_above_0(steps):
    optim = small.tiny_config().optim
    optim.schedule = "one_cycle"
    rates = [float(make_schedule(optim, steps=steps, steps_per_epoch=1)(step)) for step in range(steps)]
    assert all(0 < rate <= optim.learning_rate * 1.0001 for rate in rates)
