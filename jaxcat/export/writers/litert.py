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

from jaxcat.bottlenecks.engines.conversion import convert, file_of
from jaxcat.bottlenecks.engines.litert import Opened, cores, interpreter
from jaxcat.bottlenecks.engines.tensorflow_graph import outputs_of
from jaxcat.export.appended import append
from jaxcat.export.formats import FLOAT16, INT8
from jaxcat.export.joined import joined
from jaxcat.export.network import LOGITS, PROBABILITIES, ExportedNetwork
from jaxcat.models.plan import IMAGE, Dense, Features
from jaxcat.system.console import without_lines
from jaxcat.system.tensorflow_import import import_tensorflow

OUTPUTS = (LOGITS, PROBABILITIES)


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
        runtime = Opened(found.Interpreter(model_path=str(path), num_threads=cores()))

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = (runtime.row(image, OUTPUTS) for image in images)
        logits, probabilities = zip(*rows, strict=True)
        return np.stack(logits), np.stack(probabilities)

    return run


def with_probabilities(logits: Any) -> Any:
    """Logits (N, outputs) → probabilities (N, classes), as TensorFlow operations."""
    tf = import_tensorflow()

    return tf.nn.softmax(tf.pad(logits, [[0, 0], [1, 0]]) if logits.shape[1] == 1 else logits)


def _answers(outputs: dict[str, Any]) -> dict[str, Any]:
    return {LOGITS: outputs[LOGITS], PROBABILITIES: with_probabilities(outputs[LOGITS])}


def _whole(network: ExportedNetwork, *, half: bool) -> bytes:
    """The network as one conversion."""
    tf = import_tensorflow()

    side = network.image_size
    image = tf.TensorSpec([1, side, side, 3], tf.uint8, name=IMAGE)

    def outputs(image: Any) -> dict[str, Any]:
        return _answers(outputs_of(network.plan.layers, network.arrays, {IMAGE: image}))

    return file_of(outputs, [image], OUTPUTS, half=half)


def _quantized(network: ExportedNetwork) -> bytes:
    """The prefix with 8-bit weights, and the head."""
    tf = import_tensorflow()

    plan = network.plan
    prefix = convert(plan.prefix(), network.arrays, quantized=True)
    head = [layer for layer in plan.layers if isinstance(layer, Features | Dense)]
    specs = [tf.TensorSpec([1, part.width], tf.float32, name=f"part{index}") for index, part in enumerate(plan.parts)]

    def outputs(*parts: Any) -> dict[str, Any]:
        return _answers(outputs_of(head, network.arrays, dict(zip(plan.outputs, parts, strict=True))))

    pairs = [(name, spec.name) for name, spec in zip(plan.outputs, specs, strict=True)]
    return joined(prefix, file_of(outputs, specs, OUTPUTS), pairs)
