"""Blocks that are computed again in the backward pass: the same step, in less memory."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import small
from test_steps import batch_of, begin

from jaxcat.system.compilation import jit
from jaxcat.training.steps import make_train_step


@pytest.mark.slow
def test_the_step_is_the_same_in_less_memory():
    states, memory = [], []
    for remat in (False, True):
        config = small.tiny_config()
        config.model.remat, config.model.train_bn, config.optim.name = remat, True, "sgd"
        config.model.cut, config.model.train_from = "mixed4", "mixed3"
        network, tx, state, frozen = begin(config)
        batch = batch_of(64)
        batch["bottleneck"] = np.asarray(jax.jit(network.prefix)(frozen, batch.pop("image")))
        step = jit(make_train_step(network, tx, seed=0), keep_barriers=True).lower(state, frozen, batch).compile()
        memory.append(step.memory_analysis().temp_size_in_bytes)
        states.append(step(state, frozen, batch))
    plain, again = states
    np.testing.assert_allclose(again.sums["loss"], plain.sums["loss"], rtol=1e-5)
    for name in ("opt_state", "stats"):
        for a, b in zip(*(jax.tree.leaves(getattr(state, name)) for state in (again, plain)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * max(1.0, float(np.abs(b).max())))
    print(f"{memory[0] / 1e6:.1f} MB, computed again {memory[1] / 1e6:.1f} MB")
    assert memory[1] < 0.8 * memory[0]
