"""StableHLO: a program of `jax.export` for CPUs, GPUs and TPUs, which needs jax and flatbuffers to run.

The description is in a zip archive that is appended to the program; `jax.export.deserialize` does not look at it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcat.export.appended import append
from jaxcat.export.network import LOGITS, PROBABILITIES, ExportedNetwork
from jaxcat.models.plan import (
    IMAGE,
    Arrays,
    AveragePooling,
    Concatenation,
    Convolution,
    Dense,
    Features,
    Layer,
    MaxPooling,
    Normalize,
    Plan,
    Statistic,
)
from jaxcat.models.pooling import cells

PLATFORMS = ("cpu", "cuda", "tpu")
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def write(path: Path, network: ExportedNetwork, *, weights: str) -> None:
    from jax import export

    def of_batch(images: Array) -> dict[str, Array]:
        logits = _logits(network.plan, network.arrays, images)
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


# layers ---------------------------------------------------------------------------------------------------------------


def _logits(plan: Plan, arrays: Mapping[str, Arrays], images: Array) -> Array:
    outputs = {IMAGE: images}
    for layer in plan.layers:
        inputs = [outputs[name] for name in layer.inputs]
        outputs[layer.name] = _output(layer, inputs, arrays.get(layer.name))
    return outputs[LOGITS]


def _output(layer: Layer, inputs: list[Array], arrays: Arrays | None) -> Array:
    x = inputs[0]
    match layer:
        case Normalize():
            ordered = x if layer.channels == "RGB" else x[..., ::-1]
            mean, std = np.array(layer.mean, np.float32), np.array(layer.std, np.float32)
            return (ordered.astype(jnp.float32) / 255 - mean) / std
        case Convolution():
            assert arrays is not None
            strides = (layer.stride, layer.stride)
            x = lax.conv_general_dilated(x, arrays.kernel, strides, layer.padding, dimension_numbers=DIMENSIONS)
            return jax.nn.relu(x + arrays.bias) if layer.relu else x + arrays.bias
        case MaxPooling():
            window, strides = (1, layer.window, layer.window, 1), (1, layer.stride, layer.stride, 1)
            return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")
        case AveragePooling():
            inside = np.ones((1, *x.shape[1:3], 1), np.float32)
            counts = layer.window**2 if layer.counts_padding else _sums(inside, layer.window)
            return _sums(x, layer.window) / counts
        case Concatenation() | Features():
            return jnp.concatenate(inputs, axis=-1)
        case Statistic():
            return _statistic(layer, x)
        case Dense():
            assert arrays is not None
            x = x @ arrays.kernel + arrays.bias
            return jax.nn.relu(x) if layer.relu else x
    raise TypeError(f"{type(layer).__name__} is no layer that this writer knows")


def _sums(x: Array | np.ndarray, window: int) -> Array:
    return lax.reduce_window(x, np.float32(0), lax.add, (1, window, window, 1), (1, 1, 1, 1), "SAME")


def _statistic(layer: Statistic, x: Array) -> Array:
    if layer.kind == "flatten":
        return x.reshape(x.shape[0], -1)
    reduce = {"avg": jnp.mean, "max": jnp.max, "std": jnp.std}[layer.kind]
    rows, columns = (cells(side, layer.grid) for side in x.shape[1:3])
    found = [reduce(x[:, a:b, c:d], axis=(1, 2)) for a, b in rows for c, d in columns]
    return jnp.concatenate(found, axis=-1)
