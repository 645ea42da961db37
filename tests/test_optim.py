"""Learning rates: the course of one cycle, and what each block gets."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
import small

from jaxcat.training.optim import layer_factors, make_optimizer, make_schedule


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


def test_the_last_block_gets_the_factor_once_and_each_block_before_it_once_more():
    assert layer_factors(["stem", "mixed0", "mixed1"], 0.5) == {"mixed1": 0.5, "mixed0": 0.25, "stem": 0.125}


def updates_of(**changes) -> tuple[dict, object]:
    """The first updates of RMSprop for gradients of ones, by stage, and the shape of its state."""
    config = small.tiny_config()
    config.model.cut, config.model.train_from = "mixed2", "mixed1"
    config.optim.weight_decay = 0.1
    config.optim.update(changes)
    network = small.network(config)
    params, _ = network.initialize(0)
    tx = make_optimizer(config.optim, network.labels, steps=10, steps_per_epoch=10, blocks=network.blocks)
    updates, state = tx.update(jax.tree.map(np.ones_like, params), tx.init(params), params)
    return updates, jax.tree.structure(state)


@pytest.mark.slow
def test_each_block_moves_by_its_own_factor_weight_decay_included():
    (plain, shape), (decayed, same_shape) = updates_of(), updates_of(layer_decay=0.5, backbone_scale=0.1)
    assert shape == same_shape, "a run may be continued with another factor"
    for stage, factor in {"mixed2": 0.05, "mixed1": 0.025, "logits": 1.0}.items():
        for before, after in zip(jax.tree.leaves(plain[stage]), jax.tree.leaves(decayed[stage]), strict=True):
            np.testing.assert_allclose(after, factor * before, rtol=1e-6)
    for stage in ("stem", "mixed0"):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(decayed[stage])), stage
