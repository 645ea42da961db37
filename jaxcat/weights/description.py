"""What weights need besides their values, such as preprocessing: from the file itself, or from weights like it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.errors import WeightsError
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.preprocessing import Conventions
from jaxcat.weights.formats.contents import Contents
from jaxcat.weights.imagenet import imagenet_classes
from jaxcat.weights.registry import CANONICAL, REGISTRY, RESIZES, TORCH, Evaluation, WeightsSpec
from jaxcat.wording import counted

LARGEST_IMAGE = 4096  # pixels a side; the same limit as for `data.image_size`
_FLOAT32 = np.finfo(np.float32)  # pixels are normalised in float32


@dataclasses.dataclass(frozen=True)
class Description:
    """What weights need besides their values.

    Attributes:
        conventions: preprocessing of the images, and the pooling rule.
        evaluation: how the published accuracy was measured, if that is known.
        classes: names of the outputs of the top (the published classification layers).
    """

    conventions: Conventions
    evaluation: Evaluation | None
    classes: tuple[str, ...]


def like(name: str | None) -> WeightsSpec | None:
    """The registry's entry of that name. Raises WeightsError if there is none."""
    if name is not None and name not in REGISTRY:
        raise WeightsError(f"no published weights are called {name!r}; these are: {', '.join(REGISTRY)}")
    return REGISTRY[name] if name else None


def of_file(contents: Contents, spec: WeightsSpec | None, *, path: Path) -> Description:
    """The description of a file: that of `spec`, else a canonical file's own, else that of its framework's weights.

    Raises:
        WeightsError: the description of a canonical file is missing or impossible.
    """
    if spec is None and contents.layout == CANONICAL:
        found = _described(contents.description, path=path)
        top = contents.tensors.get("logits/bias")
        if flaw := _flaw(found, backbone=contents.backbone, outputs=top.shape[0] if top and top.shape else 0):
            raise WeightsError(f"{path}: its metadata say {flaw}; convert it again with scripts/convert_weights.py")
        return found
    spec = spec or _frameworks_own(contents)
    return Description(spec.conventions, spec.evaluation, imagenet_classes())


def _frameworks_own(contents: Contents) -> WeightsSpec:
    """The published weights that a file without a description follows: those of its framework and backbone."""
    usual = REGISTRY[BACKBONES[contents.backbone].weights]  # Keras's
    if contents.layout != TORCH:
        return usual
    return next((s for s in REGISTRY.values() if (s.backbone, s.layout) == (contents.backbone, TORCH)), usual)


def _described(about: dict[str, Any], *, path: Path) -> Description:
    try:
        evaluation = Evaluation.from_dict(about["evaluation"]) if about["evaluation"] else None
        return Description(Conventions.from_dict(about), evaluation, tuple(map(str, about["classes"] or ())))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WeightsError(f"{path} does not say how it was trained: its metadata lack {error}") from error


def _flaw(found: Description, *, backbone: str, outputs: int) -> str:
    """The first impossible value and why, or "". `image_size` and `resize` are checked as they go into a config."""
    preprocessing, evaluation = found.conventions.preprocessing, found.evaluation
    least, of_top = BACKBONES[backbone].least_image_size, BACKBONES[backbone].top.image_size
    if not all(abs(value) <= _FLOAT32.max for value in preprocessing.mean):
        return f"preprocessing.mean={list(preprocessing.mean)}, which must be finite numbers"
    if not all(_FLOAT32.tiny <= value <= _FLOAT32.max for value in preprocessing.std):
        return f"preprocessing.std={list(preprocessing.std)}, which must be finite numbers above 0"
    if evaluation and not least <= evaluation.image_size <= LARGEST_IMAGE:
        limits = f"at least {least} and at most {LARGEST_IMAGE}"
        return f"evaluation.image_size={evaluation.image_size}, which must be {limits}"
    if evaluation and outputs and of_top not in (None, evaluation.image_size):
        return f"evaluation.image_size={evaluation.image_size}, which must be {of_top} for its top"
    if evaluation and evaluation.resize not in RESIZES:
        return f"evaluation.resize={evaluation.resize[:80]!r}, which must be one of {', '.join(RESIZES)}"
    if found.classes and len(found.classes) != outputs:
        return f"classes are {counted(len(found.classes), 'name')}, where the top has {counted(outputs, 'output')}"
    return ""
