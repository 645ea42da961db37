"""A step in parts equals the whole step: masked rows, class weights, several devices; and it takes less memory."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import small
from jax.sharding import Mesh
from test_steps import CPU, batch_of, begin, pad

from jaxcat.errors import ConfigError
from jaxcat.system.compilation import jit
from jaxcat.system.devices import make_mesh, place_replicated, replicated, to_global
from jaxcat.train import train
from jaxcat.training.accumulation import added, check_parts, divided
from jaxcat.training.steps import make_train_step


def test_every_row_is_in_one_part_and_parts_have_different_keys():
    rows = np.arange(12)
    np.testing.assert_array_equal(divided(rows, 3), [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
    keys = []

    def function(part, key):
        jax.debug.callback(lambda key: keys.append(int(key)), jax.random.bits(key))
        return {"sum": part.sum(), "squares": (part**2).sum()}

    found = added(function, rows, parts=3, key=jax.random.key(0))
    jax.effects_barrier()
    assert (int(found["sum"]), int(found["squares"])) == (66, int((rows**2).sum()))
    assert len(set(keys)) == 3


def config_of(**changes):
    config = small.tiny_config()
    config.model.cut, config.model.train_from, config.model.hidden = "mixed0", "mixed0", 4
    config.optim.name = "sgd"  # an update is the gradient times the learning rate
    config.update_from_flattened_dict(changes)
    return config


def after(mesh, *, accumulate: int, rows: int):
    """The state after two steps on 10 rows, padded to `rows`; of 3 classes with weights."""
    network, tx, state, frozen = begin(config_of(), classes=3)
    step = make_train_step(
        network,
        tx,
        seed=0,
        class_weights=np.array([1.0, 3.0, 0.25]),
        label_smoothing=0.1,
        accumulate=accumulate,
    )
    step = jit(step, keep_barriers=True, out_shardings=replicated(mesh))
    state, frozen = place_replicated(mesh, state), place_replicated(mesh, frozen)
    for seed in range(2):
        state = step(state, frozen, to_global(mesh, pad(batch_of(10, 3, seed=seed), rows)))
    return state


@pytest.mark.parametrize("devices", small.slow_except([8], [1, 8]))
def test_parts_equal_the_whole(devices):
    mesh = Mesh(np.array(CPU[:1]), ("data",)) if devices == 1 else make_mesh()
    whole, parts = (after(mesh, accumulate=count, rows=16) for count in (1, 2))
    assert whole.sums["count"] == parts.sums["count"] == 20
    assert whole.sums["correct"] == parts.sums["correct"]
    np.testing.assert_allclose(parts.sums["loss"], whole.sums["loss"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(parts.opt_state), jax.tree.leaves(whole.opt_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6 * max(1.0, float(np.abs(b).max())))


@pytest.mark.slow
def test_parts_take_less_memory():
    network, tx, state, frozen = begin(config_of(**{"model.train_from": "stem", "model.width": 0.125}))
    steps = [jit(make_train_step(network, tx, seed=0, accumulate=count), keep_barriers=True) for count in (1, 4)]
    whole, parts = (
        step.lower(state, frozen, batch_of(32)).compile().memory_analysis().temp_size_in_bytes for step in steps
    )
    assert parts < 0.5 * whole


def test_a_device_that_cannot_divide_its_rows_is_refused(tmp_path):
    config = small.tiny_config()
    config.optim.accumulate, config.batch_size = 4, 16
    config.data.train_size = 40
    with pytest.raises(ConfigError, match=r"accumulate=4: each of 8 devices has 2 rows of a batch of 16.* of 32"):
        train(config, tmp_path)
    check_parts(config, images=100, mesh=Mesh(np.array(CPU[:1]), ("data",)))
