"""The exponential moving average of the trained parameters.

With `optim.average`, the averaged parameters are the model of the run: the item "model" of a checkpoint holds them, so
validation, the choice of the best step, evaluate, predict, report, export and `init_from` use them. The item "training"
holds the parameters themselves, from which training goes on. Statistics of BatchNorm are moving averages already and
are not averaged again.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxcat.models.network import Tree


def start_of_average(trained: Tree) -> Tree:
    """The average before the first step: a copy, because a step takes over the memory of both trees."""
    return jax.tree.map(jnp.array, trained)


def moved_average(averaged: Tree, trained: Tree, *, decay: float, step: Array) -> Tree:
    """The average after a step.

    Args:
        averaged: the average before it.
        trained: the parameters after it.
        decay: share of the old average that a step keeps, late in a run.
        step: int32 (), number of steps before this one.
    """
    kept = decay_at(step, decay)
    return jax.tree.map(lambda old, new: new + kept * (old - new), averaged, trained)


def decay_at(step: Array, decay: float) -> Array:
    """The share that a step keeps: min(decay, (1 + step) / (10 + step)), float32 ().

    The second value is that of TensorFlow's ExponentialMovingAverage with `num_updates`: early in a run the average is
    over few steps, so that the first parameters are soon forgotten.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))
