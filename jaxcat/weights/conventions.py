"""What numbers need to mean anything, beside the numbers: from the file itself, or from published weights like it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.config import RULES
from jaxcat.errors import WeightsError
from jaxcat.weights.contents import Contents
from jaxcat.weights.imagenet import imagenet_classes
from jaxcat.weights.registry import (
    CANONICAL,
    KERAS_3,
    KERAS_LEGACY_H5,
    REGISTRY,
    TORCH,
    Evaluation,
    Preprocessing,
    WeightsSpec,
)

# Whose conventions a file follows that says nothing of itself: the framework's own weights were trained so.
_FRAMEWORKS_OWN = {KERAS_LEGACY_H5: "keras-imagenet", KERAS_3: "keras-imagenet", TORCH: "torchvision"}
_FLOAT32 = np.finfo(np.float32)  # pixels are normalised in it


@dataclasses.dataclass(frozen=True)
class Conventions:
    """What numbers need to mean anything, beside the numbers.

    Attributes:
        preprocessing: what the network was trained to see.
        pool_counts_padding: the pooling rule it was trained with; see `inception.Options`.
        evaluation: how its published accuracy was measured, if that is known.
        classes: names of the top's outputs.
    """

    preprocessing: Preprocessing
    pool_counts_padding: bool
    evaluation: Evaluation | None
    classes: tuple[str, ...]


def like(name: str | None) -> WeightsSpec | None:
    """The registry's entry of that name. Raises WeightsError where there is none."""
    if name is not None and name not in REGISTRY:
        raise WeightsError(f"no published weights are called {name!r}; these are: {', '.join(REGISTRY)}")
    return REGISTRY[name] if name else None


def of_file(contents: Contents, spec: WeightsSpec | None, *, path: Path) -> Conventions:
    """A canonical file's own, else those of the published weights that it is or follows.

    Raises:
        WeightsError: a canonical file does not say, or says what cannot be.
    """
    if spec is None and contents.layout == CANONICAL:
        found = _described(contents.description, path=path)
        top = contents.tensors.get("logits/bias")
        if flaw := _flaw(found, outputs=top.shape[0] if top and top.shape else 0):
            raise WeightsError(f"{path}: its metadata say {flaw}; convert it anew with scripts/convert_weights.py")
        return found
    spec = spec or REGISTRY[_FRAMEWORKS_OWN[contents.layout]]
    return Conventions(spec.preprocessing, spec.pool_counts_padding, spec.evaluation, imagenet_classes())


def _described(about: dict[str, Any], *, path: Path) -> Conventions:
    try:
        evaluation = Evaluation.from_dict(about["evaluation"]) if about["evaluation"] else None
        preprocessing, counts = Preprocessing.from_dict(about["preprocessing"]), about["pool_counts_padding"]
        return Conventions(preprocessing, bool(counts), evaluation, tuple(map(str, about["classes"] or ())))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WeightsError(f"{path} does not say how it was trained: its metadata lack {error}") from error


def _flaw(found: Conventions, *, outputs: int) -> str:
    """The first value that cannot be, and why, or nothing. `image_size` and `resize` go straight into a config."""
    mean, std, evaluation = found.preprocessing.mean, found.preprocessing.std, found.evaluation
    if not all(abs(value) <= _FLOAT32.max for value in mean):
        return f"preprocessing.mean={list(mean)}, which must be finite numbers"
    if not all(_FLOAT32.tiny <= value <= _FLOAT32.max for value in std):
        return f"preprocessing.std={list(std)}, which must be finite numbers above 0"
    if evaluation and (reason := RULES["data.image_size"](evaluation.image_size)):
        return f"evaluation.image_size={evaluation.image_size}, which {reason}"
    if evaluation and (reason := RULES["data.resize"](evaluation.resize)):
        return f"evaluation.resize={evaluation.resize[:80]!r}, which {reason}"
    if found.classes and len(found.classes) != outputs:
        return f"classes are {len(found.classes):,} names, where the top has {outputs:,} outputs"
    return ""
