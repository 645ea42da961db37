"""The Flax modules of a network by the name of their stage, divided into structure and shapes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from jaxcat.models.backbone import BACKBONES, Top
from jaxcat.models.head import Pool
from jaxcat.models.layers import Options
from jaxcat.models.pooling import hidden_layers
from jaxcat.models.wiring import Shape


class Stage(NamedTuple):
    """One stage without arrays; `nnx.merge(graph, params, stats)` gives its module when they are there.

    Attributes:
        graph: an `nnx.GraphDef`.
        params, stats: nested dictionaries of `jax.ShapeDtypeStruct`s.
    """

    graph: Any
    params: dict[str, Any]
    stats: dict[str, Any]


def stage_of(module: nnx.Module) -> Stage:
    """A module from `nnx.eval_shape` as a stage. Raises ValueError if it holds more, such as random state."""
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
    return Stage(graph, *map(nnx.to_pure_dict, states))


@functools.lru_cache(maxsize=64)
def blocks_of(backbone: str, cut: str, options: Options) -> Mapping[str, Stage]:
    """The blocks of a backbone up to the cut. Do not change them: the same arguments give the same object."""
    modules = nnx.eval_shape(lambda: BACKBONES[backbone].build(cut, options))
    return {name: stage_of(modules[name]) for name in BACKBONES[backbone].up_to(cut)}


def head_of(
    model: ConfigDict, shapes: Mapping[str, Shape], *, pooled: Sequence[str], outputs: int, top: Top | None
) -> tuple[Pool, dict[str, Stage]]:
    """The stage "pool" as a module, and all stages of the head: "pool", the hidden layers and "logits".

    Args:
        model: the section `model` of a completed configuration.
        shapes: of the outputs of the blocks.
        pooled: the blocks whose outputs the head sees.
        outputs: number of logits.
        top: published classification layers in place of the head that `model` describes.
    """

    def make() -> dict[str, Any]:
        modules: dict[str, Any] = {"pool": Pool(kind, model.pool_grid, {block: shapes[block] for block in pooled})}
        features, rngs = modules["pool"].features, nnx.Rngs(0)
        for name, width in hidden_layers(model, top).items():
            modules[name] = nnx.Linear(features, width, dtype=jnp.dtype(model.dtype), rngs=rngs)
            features = width
        modules["logits"] = nnx.Linear(features, outputs, dtype=jnp.float32, rngs=rngs)
        return modules

    kind = top.pool if top else model.pool
    modules = nnx.eval_shape(make)
    return modules["pool"], {name: stage_of(module) for name, module in modules.items()}
