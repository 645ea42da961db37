"""The keys of bottlenecks: everything that shapes a row except the image.

Maps have one key for each end of the prefix. Pooled features have one for each block and statistic, whichever other
blocks the run pools and wherever its prefix ends, so that runs share what they have in common.

This module imports no framework: the keys of a LiteRT engine need none, so that its rows are found without JAX.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxcat.bottlenecks.engines.conversion import plan_of_run
from jaxcat.bottlenecks.engines.litert import DELEGATE, required_interpreter
from jaxcat.bottlenecks.engines.names import XLA, engine_of
from jaxcat.bottlenecks.engines.tensorflow_graph import GRAPH_VERSION
from jaxcat.bottlenecks.versions import step_versions
from jaxcat.data.augmentation.table import DEVICE, views_of
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.pooling import MAP
from jaxcat.models.preprocessing import Conventions
from jaxcat.system.files import json_digest
from jaxcat.system.versions import installed_versions

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
        A key for each of `net.bottleneck.parts`, in their order.
    """
    if config.bottleneck.engine != XLA:
        return litert_keys(config, net.conventions, frozen_digests)
    of_blocks, keys = _of_blocks(frozen_digests, net.blocks), []
    for part in net.bottleneck.parts:
        count = 1 + net.blocks.index(part.block)
        if part.statistic == MAP:
            numbers = json_digest(_of_stages(frozen_digests, net.blocks[:count]))
            of_part: dict[str, Any] = {"numbers": numbers, "pool": None}
        else:
            of_part = {"numbers": of_blocks[:count], "pool": [part.statistic, config.model.pool_grid]}
        keys.append(_common(config, net.conventions, stages=net.blocks[:count]) | of_part | _of_xla(config))
    return keys


def litert_keys(
    config: ConfigDict, conventions: Conventions, frozen_digests: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Everything that shapes a row of a LiteRT engine except the image, as plain JSON: a key for each part, in order.

    Args:
        config: the complete config, as a run stores it.
        conventions: those of the run's weights.
        frozen_digests: see `keys_of`.

    Raises:
        EngineError: no interpreter is installed.
    """
    found = required_interpreter()
    keys = []
    for computation in computations(config, conventions, frozen_digests):
        key = _common(config, conventions, stages=computation["stages"]) | computation
        key["delegate"], key["machine"] = DELEGATE, platform.machine()
        key["versions"] = installed_versions("numpy", "pillow") | {found.package: found.version}
        if views_of(config).changed:
            key["augmented_by"] = _of_augmentation()
        keys.append(key)
    return keys


def computations(
    config: ConfigDict, conventions: Conventions, frozen_digests: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What shapes each part of a converted prefix, in their order, as plain JSON; the arguments are as above."""
    engine_of(config.bottleneck.engine)
    plan, blocks = plan_of_run(config, conventions), BACKBONES[config.model.backbone].up_to(config.model.cut)
    of_blocks, found = _of_blocks(frozen_digests, blocks), []
    for part in plan.parts:
        count = 1 + blocks.index(part.block)
        found.append(
            {
                "engine": config.bottleneck.engine,
                "plan": plan.up_to(part.block).digest(),
                "stages": list(blocks[:count]),
                "numbers": of_blocks[:count],
                "pool": [part.statistic, config.model.pool_grid],
                "converter": {"graph": GRAPH_VERSION, **installed_versions("tensorflow", "tensorflow-cpu")},
            }
        )
    return found


def _of_blocks(frozen_digests: Mapping[str, str], blocks: Sequence[str]) -> list[str]:
    """A digest of the arrays of each block."""
    return [json_digest(_of_stages(frozen_digests, [block])) for block in blocks]


def _of_stages(frozen_digests: Mapping[str, str], blocks: Sequence[str]) -> dict[str, str]:
    """The digests of the arrays of some blocks. Names may be anything: a meta may come from anywhere."""
    return {name: digest for name, digest in frozen_digests.items() if set(name.split("/")[1:2]) & set(blocks)}


def _common(config: ConfigDict, conventions: Conventions, *, stages: Sequence[str]) -> dict[str, Any]:
    """The entries that do not depend on what computes the output of the last of `stages`."""
    model, data = config.model, config.data
    return {
        "format": FORMAT,
        "steps": step_versions(),
        "backbone": model.backbone,
        "stages": list(stages),
        "width": model.width,
        **conventions.to_dict(),
        "image_size": data.image_size,
        "resize": data.resize,
        **({} if data.grey_bits in (0, 16) else {"grey_bits": data.grey_bits}),  # 16: as before there was a scale
        "augment": data.augment,
        **_of_views(config),
        "compute_dtype": model.dtype,
        "dtype": config.bottleneck.dtype,
    }


def _of_views(config: ConfigDict) -> dict[str, Any]:
    """The entries about views besides the augmentation's name; newer entries only if they change rows."""
    views = views_of(config)
    entries: dict[str, Any] = {"seed": config.seed if views.changed else None}
    if views.erase:
        entries["erase"] = views.erase
    if views.changed and views.on == DEVICE:  # a grey level may differ from the host's
        entries["augment_on"] = DEVICE
    return entries


def _of_xla(config: ConfigDict) -> dict[str, Any]:
    """The entries of a row that XLA computes."""
    import jax

    from jaxcat.system.compilation import compiler_options, xla_flags

    return {
        "matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        "platform": [jax.default_backend(), jax.devices()[0].device_kind],
        "compiler_options": compiler_options(),
        "xla_flags": xla_flags(),
        "tensorflow_onednn": _onednn(),
        "versions": installed_versions("jax", "jaxlib", "flax", "numpy", "pillow", "tensorflow", "tensorflow-cpu"),
    }


def _of_augmentation() -> dict[str, Any]:
    """The entries of an augmented image: TensorFlow moves the colours."""
    return {"tensorflow_onednn": _onednn(), **installed_versions("tensorflow", "tensorflow-cpu")}


def _onednn() -> str:
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")  # changes a few last bits of colours
