"""The Flax modules of a network, by the name of their stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from jaxcat.models.backbone import BACKBONES, Top
from jaxcat.models.head import Pool
from jaxcat.models.layers import Options
from jaxcat.models.pooling import hidden_layers
from jaxcat.models.preprocessing import Conventions
from jaxcat.models.wiring import Shape


def modules_of(
    model: ConfigDict,
    shapes: Mapping[str, Shape],
    *,
    conventions: Conventions,
    pooled: Sequence[str],
    outputs: int,
    top: Top | None,
) -> dict[str, Any]:
    """The blocks up to the cut, "pool", the hidden layers and "logits".

    Args:
        model: the section `model` of a completed configuration.
        shapes: of the outputs of the blocks.
        conventions: those of the parameters that will be used.
        pooled: the blocks whose outputs the head sees.
        outputs: number of logits.
        top: published classification layers in place of the head that `model` describes.
    """
    options = Options(
        width=model.width,
        pool_counts_padding=conventions.pool_counts_padding,
        bn_momentum=model.bn_momentum,
        dtype=model.dtype,
    )
    modules = BACKBONES[model.backbone].build(model.cut, options)
    kind = top.pool if top else model.pool
    modules["pool"] = Pool(kind, model.pool_grid, {block: shapes[block] for block in pooled})
    features = modules["pool"].features
    rngs = nnx.Rngs(0)
    for name, width in hidden_layers(model, top).items():
        modules[name] = nnx.Linear(features, width, dtype=jnp.dtype(model.dtype), rngs=rngs)
        features = width
    modules["logits"] = nnx.Linear(features, outputs, dtype=jnp.float32, rngs=rngs)
    return modules
