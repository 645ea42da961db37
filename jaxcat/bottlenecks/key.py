"""The keys of bottlenecks: everything that shapes a row except the image.

Maps have one key for each end of the prefix. Pooled features have one for each block and statistic, whatever other
blocks are pooled beside it and wherever the pass that computes it ends, so that runs share what they have in common.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxcat.bottlenecks.versions import step_versions
from jaxcat.models.preprocessing import Conventions

if TYPE_CHECKING:
    from jaxcat.models.network import Network

FORMAT = 1  # of the cache: raise it if the identity of a row or the layout of a block changes


def keys_of(config: ConfigDict, net: Network, *, frozen_digests: Mapping[str, str]) -> list[dict[str, Any]]:
    """Everything that shapes a row except the image, as plain JSON.

    Args:
        config: the complete config, as a run stores it.
        net: the network of the run.
        frozen_digests: digests of the prefix's parameters and statistics, from `runs.meta.digests`. They identify the
            weights, whatever file or run the weights come from.

    Returns:
        A key for each of `net.parts`, in their order, if the prefix ends with "pool"; else one key.
    """
    if not net.prefix_pools:
        return [_key(config, net, numbers=_hash(frozen_digests), stages=net.prefix_stages, pool=None)]
    of_blocks = [
        _hash({name: digest for name, digest in frozen_digests.items() if name.split("/")[1] == block})
        for block in net.blocks
    ]
    keys = []
    for part in net.parts:
        count = 1 + net.blocks.index(part.block)
        pool = [part.statistic, config.model.pool_grid]
        keys.append(_key(config, net, numbers=of_blocks[:count], stages=net.blocks[:count], pool=pool))
    return keys


def litert_keys(
    config: ConfigDict, conventions: Conventions, frozen_digests: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Everything that shapes a row of a LiteRT engine except the image, as plain JSON: a key for each part, in order.

    Imports no JAX, so that cached rows are found without it.

    Args:
        config: the complete config, as a run stores it.
        conventions: those of the run's weights.
        frozen_digests: see `keys_of`.

    Raises:
        EngineError: no interpreter is installed.
    """
    raise NotImplementedError


def _hash(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _key(
    config: ConfigDict,
    net: Network,
    *,
    numbers: str | list[str],
    stages: Sequence[str],
    pool: list[str | int] | None,
) -> dict[str, Any]:
    """The key of the output of the last of `stages`, or of a statistic of it on a grid, `pool`."""
    import jax

    from jaxcat.system.compilation import compiler_options, installed_versions, xla_flags

    model, data = config.model, config.data
    return {
        "format": FORMAT,
        "steps": step_versions(),
        "numbers": numbers,
        "backbone": model.backbone,
        "stages": list(stages),
        "width": model.width,
        "pool": pool,
        **net.conventions.to_dict(),
        "image_size": data.image_size,
        "resize": data.resize,
        **({} if data.grey_bits in (0, 16) else {"grey_bits": data.grey_bits}),  # 16: as before there was a scale
        "augment": data.augment,
        "seed": None if data.augment == "none" else config.seed,
        "compute_dtype": model.dtype,
        "matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        "dtype": config.bottleneck.dtype,
        "platform": [jax.default_backend(), jax.devices()[0].device_kind],
        "compiler_options": compiler_options(),
        "xla_flags": xla_flags(),
        "tensorflow_onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", ""),  # changes a few last bits of colours
        "versions": installed_versions("jax", "jaxlib", "flax", "numpy", "pillow", "tensorflow", "tensorflow-cpu"),
    }
