"""A small frozen network, converted for LiteRT in this process or as a run does it, and its features by JAX."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import small
from ml_collections import ConfigDict

from jaxcat.bottlenecks.engines.conversion import convert, plan_of_run
from jaxcat.bottlenecks.engines.litert import Converted
from jaxcat.bottlenecks.engines.names import engine_of
from jaxcat.config import default
from jaxcat.models.completion import complete
from jaxcat.models.network import Network, Tree
from jaxcat.models.plan import folded
from jaxcat.models.preprocessing import Conventions
from jaxcat.runs import meta


class Small(NamedTuple):
    """A network with numbers in it, and the configuration of a run on its bottlenecks."""

    config: ConfigDict
    network: Network
    frozen: Tree
    digests: dict[str, str]

    def features(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(jax.jit(self.network.prefix)(self.frozen, images))


def config_of(engine: str = "litert_int8", **changes) -> ConfigDict:
    config = default()
    config.model.width, config.model.weights, config.model.pool = 0.1, "none", "avg_std"
    config.model.pool_from, config.data.image_size = "stem", 75
    config.bottleneck.views, config.bottleneck.dtype, config.bottleneck.engine = 1, "float32", engine
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    complete(config)
    return config


def small_of(config: ConfigDict, conventions: Conventions | None = None) -> Small:
    """The network of a configuration; equal blocks of two configurations have equal numbers."""
    network = small.network(config, conventions=conventions)
    params, stats = network.initialize(0)
    for stage in network.blocks:  # biases, means and variances that matter too
        generator = np.random.default_rng(network.blocks.index(stage))
        moved = functools.partial(_moved, generator=generator)
        params[stage], stats[stage] = jax.tree.map(moved, params[stage]), jax.tree.map(moved, stats[stage])
    frozen, _ = network.split(params, stats)
    return Small(config, network, frozen, meta.digests(frozen))


def _moved(leaf: np.ndarray, *, generator: np.random.Generator) -> np.ndarray:
    return leaf if leaf.ndim > 1 else leaf + np.float32(0.1) * generator.random(leaf.shape, np.float32)


def converted_here(of: Small) -> Converted:
    """The converted prefix, without a cache or another process."""
    plan = plan_of_run(of.config, of.network.conventions)
    arrays = folded(plan, of.frozen["params"], of.frozen["stats"])
    content = convert(plan, arrays, quantized=engine_of(of.config.bottleneck.engine).quantized)
    return Converted(Path("here.tflite"), content, of.config.data.image_size, plan.outputs)


def side_by_side(rows) -> np.ndarray:
    return np.stack([np.concatenate(row) for row in rows])
