"""The key of a set of bottlenecks: everything that shapes a row except the image."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxcat.data import augment
from jaxcat.data.images import decoding, resizing
from jaxcat.models import network
from jaxcat.system.compilation import compiler_options, installed_versions, xla_flags

FORMAT = 1  # of the cache: raise it if the identity of a row or the layout of a block changes


def step_versions() -> dict[str, int]:
    """The declared version of every step from a stored image to the prefix's output.

    Raise a step's version if its results change; tests/test_golden.py fails otherwise.
    """
    return {
        "decode": decoding.DECODE_VERSION,
        "resize": resizing.RESIZE_VERSION,
        "augment": augment.AUGMENT_VERSION,
        "prefix": network.PREFIX_VERSION,
    }


def key_of(config: ConfigDict, net: network.Network, *, frozen_digests: dict[str, str]) -> dict[str, Any]:
    """Everything that shapes a row except the image, as plain JSON.

    Args:
        config: the complete config, as a run stores it.
        net: the network of the run.
        frozen_digests: digests of the prefix's parameters and statistics, from `runs.meta.digests`. They identify the
            weights, whatever file or run the weights come from.
    """
    model, data = config.model, config.data
    return {
        "format": FORMAT,
        "steps": step_versions(),
        "numbers": hashlib.sha256(json.dumps(frozen_digests, sort_keys=True).encode()).hexdigest(),
        "backbone": model.backbone,
        "stages": list(net.prefix_stages),
        "width": model.width,
        "pool": [model.pool, model.pool_grid, *net.pooled] if "pool" in net.prefix_stages else None,
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
