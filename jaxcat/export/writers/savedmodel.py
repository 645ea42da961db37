"""SavedModel: a folder for TensorFlow, and for TensorFlow Serving, which looks for a version in it: PATH/1.

Its signatures are `serving_default`, which takes prepared images, uint8 (N, S, S, 3), and `encoded`, which takes the
bytes of JPEG and PNG files. The description and the labels are in PATH/1/assets.extra.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.bottlenecks.engines.tensorflow_graph import outputs_of
from jaxcat.export.appended import DESCRIPTION, LABELS, lines
from jaxcat.export.network import LOGITS, PROBABILITIES, ExportedNetwork
from jaxcat.export.writers.litert import with_probabilities
from jaxcat.models.plan import IMAGE
from jaxcat.system.console import without_lines
from jaxcat.system.tensorflow_import import import_tensorflow

VERSION = "1"
ENCODED = "encoded"  # the signature for encoded images, and its input


def write(path: Path, network: ExportedNetwork, *, weights: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_lines(""):
        tf = import_tensorflow()

        from jaxcat.export.pixels.decoding import decoded
        from jaxcat.export.pixels.resizing import resized

        side, data = network.image_size, network.meta.config.data
        module = tf.Module()
        module.arrays = {  # variables: constants would be stored once for each signature
            name: [tf.Variable(array, trainable=False) for array in arrays] for name, arrays in network.arrays.items()
        }

        def of_images(images: Any) -> dict[str, Any]:
            logits = outputs_of(network.plan.layers, module.arrays, {IMAGE: images})[LOGITS]
            return {LOGITS: logits, PROBABILITIES: with_probabilities(logits)}

        def of_encoded(encoded: Any) -> dict[str, Any]:
            def prepared(each: Any) -> Any:
                return resized(decoded(each, max_pixels=data.max_pixels), side, mode=data.resize)

            return of_images(tf.map_fn(prepared, encoded, fn_output_signature=tf.TensorSpec((side, side, 3), tf.uint8)))

        signatures = {
            "serving_default": tf.function(of_images, autograph=False).get_concrete_function(
                tf.TensorSpec((None, side, side, 3), tf.uint8, name=IMAGE)
            ),
            ENCODED: tf.function(of_encoded, autograph=False).get_concrete_function(
                tf.TensorSpec((None,), tf.string, name=ENCODED)
            ),
        }
        options = tf.saved_model.SaveOptions(save_debug_info=False)
        tf.saved_model.save(module, str(path / VERSION), signatures=signatures, options=options)


def describe(path: Path, text: str, *, classes: Sequence[str]) -> None:
    folder = path / VERSION / "assets.extra"
    folder.mkdir()
    (folder / DESCRIPTION).write_text(text, encoding="ascii")
    (folder / LABELS).write_bytes(lines(classes))


def opened(path: Path, network: ExportedNetwork) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    with without_lines(""):
        tf = import_tensorflow()

        loaded = tf.saved_model.load(str(path / VERSION))
    call = loaded.signatures["serving_default"]

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = call(**{IMAGE: tf.constant(images)})
        return outputs[LOGITS].numpy(), outputs[PROBABILITIES].numpy()

    run.keeps = loaded  # type: ignore[attr-defined]  # its variables live as long as it
    return run
