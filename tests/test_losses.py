"""Label smoothing against Keras, by hand, and in a step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from test_steps import batch_of, begin

from jaxcat.objectives.losses import losses
from jaxcat.objectives.sums import masked_sums
from jaxcat.training.steps import make_train_step

GENERATOR = np.random.default_rng(0)


def test_by_hand():
    """p(own class) = 3/4: targets of 0.2 smoothing over two classes are 0.9 and 0.1."""
    expected = -0.9 * np.log(0.75) - 0.1 * np.log(0.25)
    assert float(losses(jnp.asarray([[np.log(3.0)]]), jnp.asarray([1]), smoothing=0.2)[0]) == pytest.approx(expected)
    two = losses(jnp.asarray([[0.0, np.log(3.0)]]), jnp.asarray([1]), smoothing=0.2)
    assert float(two[0]) == pytest.approx(expected)


@pytest.mark.parametrize("outputs", [1, 4])
def test_as_keras_smooths(outputs):
    keras = pytest.importorskip("keras")
    logits = GENERATOR.normal(size=(9, outputs), scale=3).astype(np.float32)
    labels = GENERATOR.integers(0, max(2, outputs), 9)
    if outputs == 1:
        theirs = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.3, reduction=None)
        expected = theirs(labels[:, None].astype(np.float32), logits)
    else:
        theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3, reduction=None)
        expected = theirs(np.eye(outputs, dtype=np.float32)[labels], logits)
    found = losses(jnp.asarray(logits), jnp.asarray(labels), smoothing=0.3)
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5)


def test_a_class_weight_multiplies_the_whole_loss_of_its_rows():
    logits, labels = jnp.asarray(GENERATOR.normal(size=(4, 3)), jnp.float32), jnp.asarray([0, 2, 1, 1])
    mask, weights = jnp.asarray([True, True, True, False]), jnp.asarray([1.0, 5.0, 0.5])
    sums = masked_sums(
        logits, {"label": labels, "mask": mask}, ("accuracy",), class_weights=weights, label_smoothing=0.1
    )
    rows = losses(logits, labels, smoothing=0.1)
    assert float(sums["loss"]) == pytest.approx(float(rows[0] + 0.5 * rows[1] + 5 * rows[2]), rel=1e-6)


def test_the_step_trains_on_smoothed_labels():
    """Once the head is surer than the smoothed label, its gradient turns back."""
    network, tx, state, frozen = begin(small.tiny_config())
    batch = batch_of(8)
    state.trained["logits"]["kernel"] = np.zeros_like(state.trained["logits"]["kernel"])
    batch["label"], state.trained["logits"]["bias"] = np.ones(8, np.int32), np.full(1, 3.0, np.float32)  # p = 0.953
    moved = {}
    for smoothing in (0.0, 0.2):
        after = jax.jit(make_train_step(network, tx, seed=0, label_smoothing=smoothing))(state, frozen, batch)
        moved[smoothing] = float(after.trained["logits"]["bias"][0]) - 3.0
    assert moved[0.0] > 0 > moved[0.2]
