"""What a range of blocks costs: milliseconds for one image through the frozen network up to its last block."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from jaxcat.bottlenecks.engines.conversion import plan_of_run
from jaxcat.bottlenecks.engines.converted import make
from jaxcat.bottlenecks.engines.litert import LiteRTPrefix
from jaxcat.bottlenecks.engines.names import XLA
from jaxcat.models.plan import Convolution, Plan
from jaxcat.study.collect import Collected
from jaxcat.system.compilation import jit
from jaxcat.system.devices import place_replicated

TIMED_IMAGES = 16
TIMES = 5  # of which the fastest counts


def milliseconds(collected: Collected, *, mesh: Mesh, console: Console) -> dict[str, float]:
    """Block → milliseconds for one image through the network up to that block, on this machine.

    The whole pass is timed, by the engine that computed it. A block's share is that of the multiplications up to it:
    a program for each block would take minutes to compile.
    """
    network = collected.run.network
    plan = plan_of_run(collected.run.meta.config, network.conventions)
    shares = {block: multiplications(plan.up_to(block)) for block in network.pooled}
    whole = _whole(collected, mesh=mesh, console=console)
    return {block: whole * count / shares[network.pooled[-1]] for block, count in shares.items()}


def multiplications(plan: Plan) -> int:
    """Number of multiplications in the convolutions of a plan, for one image."""
    channels = {layer.name: layer.shape[-1] for layer in plan.layers}
    return sum(
        int(np.prod(layer.shape)) * int(np.prod(layer.kernel)) * channels[layer.inputs[0]]
        for layer in plan.layers
        if isinstance(layer, Convolution)
    )


def _whole(collected: Collected, *, mesh: Mesh, console: Console) -> float:
    """Milliseconds for one image of the whole pass; several images are computed at the same time."""
    run, size = collected.run, collected.size
    images = np.random.default_rng(0).integers(0, 256, (TIMED_IMAGES, size, size, 3), np.uint8)
    if run.meta.config.bottleneck.engine == XLA:
        on_devices, program = place_replicated(mesh, images), jit(run.network.prefix)
        return _fastest(lambda: jax.block_until_ready(program(run.frozen, on_devices)))
    converted = make(
        run.meta.config,
        run.network.conventions,
        run.meta.frozen_digests,
        arrays=lambda: jax.device_get(run.frozen),
        console=console,
    )
    prefix = LiteRTPrefix(converted)
    return _fastest(lambda: list(prefix.rows(images)))


def _fastest(compute: Callable[[], object]) -> float:
    compute()  # compiles, or opens the interpreters
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds) / TIMED_IMAGES
