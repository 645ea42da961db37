"""LiteRT (TensorFlow Lite): a file that takes one uint8 image (1, S, S, 3).

With 8-bit weights, the file is the converted prefix, exactly as the engine litert_int8 has it, and after it the head in
float32. The description and the labels are in a zip archive that is appended, as TensorFlow Lite keeps metadata.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.bottlenecks.engines.conversion import convert
from jaxcat.bottlenecks.engines.litert import cores, interpreter
from jaxcat.bottlenecks.engines.tensorflow_graph import outputs_of
from jaxcat.export.appended import append
from jaxcat.export.formats import FLOAT16, INT8
from jaxcat.export.joined import joined
from jaxcat.export.network import LOGITS, PROBABILITIES, ExportedNetwork
from jaxcat.models.plan import IMAGE, Dense, Features, Plan
from jaxcat.system.console import without_lines


def write(path: Path, network: ExportedNetwork, *, weights: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_lines(""):  # what the converter notes; its errors are raised
        path.write_bytes(_quantized(network) if weights == INT8 else _whole(network, half=weights == FLOAT16))


def describe(path: Path, text: str, *, classes: Sequence[str]) -> None:
    append(path, text, classes=classes)


def opened(path: Path, network: ExportedNetwork) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    if (found := interpreter()) is None:
        return None
    with without_lines("XNNPACK delegate for CPU"):
        runtime = found.Interpreter(model_path=str(path), num_threads=cores())
        runtime.allocate_tensors()
    (image,) = runtime.get_input_details()
    outputs = {each["name"]: each["index"] for each in runtime.get_output_details()}

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = []
        for each in images:
            runtime.set_tensor(image["index"], each[None])
            runtime.invoke()
            rows.append([runtime.get_tensor(outputs[name])[0] for name in (LOGITS, PROBABILITIES)])
        logits, probabilities = zip(*rows, strict=True)
        return np.stack(logits), np.stack(probabilities)

    return run


def with_probabilities(logits: Any) -> Any:
    """Logits (N, outputs) → probabilities (N, classes), as TensorFlow operations."""
    import tensorflow as tf

    return tf.nn.softmax(tf.pad(logits, [[0, 0], [1, 0]]) if logits.shape[1] == 1 else logits)


def _whole(network: ExportedNetwork, *, half: bool) -> bytes:
    """The network as one conversion."""
    import tensorflow as tf

    side = network.image_size
    image = tf.TensorSpec([1, side, side, 3], tf.uint8, name=IMAGE)

    def outputs(image: Any) -> dict[str, Any]:
        logits = outputs_of(network.plan, network.arrays, image)[LOGITS]
        return {LOGITS: logits, PROBABILITIES: with_probabilities(logits)}

    return _converted(outputs, [image], half=half)


def _quantized(network: ExportedNetwork) -> bytes:
    """The prefix with 8-bit weights, and the head."""
    import tensorflow as tf

    plan = network.plan
    prefix = convert(plan.prefix(), network.arrays, quantized=True)
    head = Plan(tuple(layer for layer in plan.layers if isinstance(layer, Features | Dense)), ())
    specs = [tf.TensorSpec([1, part.width], tf.float32, name=f"part{index}") for index, part in enumerate(plan.parts)]

    def outputs(*parts: Any) -> dict[str, Any]:
        found = dict(zip(plan.outputs, parts, strict=True))
        for layer in head.layers:
            inputs = [found[name] for name in layer.inputs]
            if isinstance(layer, Features):
                found[layer.name] = tf.concat(inputs, axis=1) if len(inputs) > 1 else inputs[0]
                continue
            kernel, bias = network.arrays[layer.name]
            x = tf.matmul(inputs[0], kernel) + bias
            found[layer.name] = tf.nn.relu(x) if isinstance(layer, Dense) and layer.relu else x
        return {LOGITS: found[LOGITS], PROBABILITIES: with_probabilities(found[LOGITS])}

    pairs = [(name, spec.name) for name, spec in zip(plan.outputs, specs, strict=True)]
    return joined(prefix, _converted(outputs, specs), pairs)


def _converted(function: Callable[..., dict[str, Any]], inputs: Sequence[Any], *, half: bool = False) -> bytes:
    """The file of a function; its outputs have the names of its dictionary."""
    import tensorflow as tf

    def named(*arguments: Any) -> None:
        for name, value in function(*arguments).items():
            tf.identity(value, name=name)

    graph = tf.compat.v1.wrap_function(named, list(inputs))
    pruned = graph.prune(graph.inputs, [graph.graph.get_tensor_by_name(f"{n}:0") for n in (LOGITS, PROBABILITIES)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([pruned])
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()
