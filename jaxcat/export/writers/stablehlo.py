"""StableHLO: a program of `jax.export` for CPUs, GPUs and TPUs, which needs jax and flatbuffers to run.

The description is in a zip archive that is appended to the program; `jax.export.deserialize` does not look at it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcat.export.appended import append
from jaxcat.export.in_jax import logits_of
from jaxcat.export.network import LOGITS, PROBABILITIES, ExportedNetwork

PLATFORMS = ("cpu", "cuda", "tpu")


def write(path: Path, network: ExportedNetwork, *, weights: str) -> None:
    from jax import export

    def of_batch(images: Array) -> dict[str, Array]:
        logits = logits_of(network.plan, network.arrays, images)
        both = jnp.pad(logits, ((0, 0), (1, 0))) if network.outputs == 1 else logits
        return {LOGITS: logits, PROBABILITIES: jax.nn.softmax(both, axis=1)}

    def one_by_one(images: Array) -> dict[str, Array]:  # faster than a large batch on a CPU
        return lax.map(lambda image: jax.tree.map(lambda x: x[0], of_batch(image[None])), images)

    def program(images: Array) -> dict[str, Array]:
        return lax.platform_dependent(images, cpu=one_by_one, default=of_batch)

    (batch,) = export.symbolic_shape("n")
    side = network.image_size
    with _without_paths():
        made = export.export(jax.jit(program), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)
        )
        path.write_bytes(made.serialize())


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """A context in which programs do not say which files of this machine they come from."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def describe(path: Path, text: str, *, classes: Sequence[str]) -> None:
    append(path, text, classes=classes)


def opened(path: Path, network: ExportedNetwork) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    from jax import export

    program = export.deserialize(bytearray(path.read_bytes()))
    call, cpu = jax.jit(program.call), jax.devices("cpu")[0]

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = call(jax.device_put(images, cpu))
        return np.asarray(outputs[LOGITS]), np.asarray(outputs[PROBABILITIES])

    return run
