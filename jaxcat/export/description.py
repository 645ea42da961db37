"""The description in an exported file, as JSON: classes, the image that it takes, its origin, versions and parity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jaxcat.inference.classifier import Classifier
from jaxcat.inference.provenance import first_of, without_folders
from jaxcat.system.versions import installed_versions

VERSION = 1  # of the description: increase it if an entry comes to mean something else
PACKAGES = ("jaxcat", "jax", "numpy", "tensorflow", "tensorflow-cpu", "onnx", "onnxruntime", "coremltools")
UNKNOWN = "not known: see the provenance"


def description_of(classifier: Classifier, *, format: str, weights: str, parity: Mapping[str, Any]) -> dict[str, Any]:
    """The description, as plain JSON.

    Args:
        format, weights: of the file.
        parity: how far its answers are from jaxcat's; see `parity.Parity.to_dict`.
    """
    meta, data, model = classifier.meta, classifier.config.data, classifier.config.model
    provenance = without_folders(meta.provenance)
    plain = {
        "description": VERSION,
        "format": format,
        "weights": weights,
        "classes": list(classifier.classes),
        "image": {
            "size": data.image_size,
            "resize": data.resize,
            "channels": "RGB",
            "values": "0 to 255; the file scales them",
            "grey_bits": data.grey_bits or 16,
            "max_pixels": data.max_pixels,
        },
        **meta.conventions.to_dict(),
        "network": {name: model[name] for name in NETWORK},
        "engine": classifier.config.bottleneck.engine,  # that the run's head was made for
        "step": meta.step,
        "calibration": classifier.calibration and classifier.calibration.to_json(),  # the logits are divided by it
        "provenance": provenance,
        "licence": first_of(provenance, "licence") or UNKNOWN,
        "attribution": first_of(provenance, "notice") or UNKNOWN,
        "versions": {"run": meta.versions, "export": installed_versions(*PACKAGES)},
        "step_versions": meta.step_versions,
        "parity": parity,
    }
    return json.loads(json.dumps(plain))


# The settings of the network that the file computes; the others of `model` are for training.
NETWORK = ("backbone", "cut", "pool_from", "pool", "pool_grid", "hidden", "width", "dtype")


def text_of(description: Mapping[str, Any]) -> str:
    """The description as JSON in ASCII, so that every format can hold every name of a class."""
    return json.dumps(description, indent=1)
