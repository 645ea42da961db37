"""What numbers need to mean anything, beside the numbers: from the file itself, or from published weights like it."""

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

LARGEST_IMAGE = 4096  # pixels a side; the same bound as of `data.image_size`
_FLOAT32 = np.finfo(np.float32)  # pixels are normalised in it


@dataclasses.dataclass(frozen=True)
class Description:
    """What numbers need to mean anything, beside the numbers.

    Attributes:
        conventions: how images are fed, and the pooling rule.
        evaluation: how the published accuracy was measured, if that is known.
        classes: names of the top's outputs.
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
    """A canonical file's own description, else that of the published weights that it is or follows.

    Raises:
        WeightsError: a canonical file does not say, or says what cannot be.
    """
    if spec is None and contents.layout == CANONICAL:
        found = _described(contents.description, path=path)
        top = contents.tensors.get("logits/bias")
        if flaw := _flaw(found, backbone=contents.backbone, outputs=top.shape[0] if top and top.shape else 0):
            raise WeightsError(f"{path}: its metadata say {flaw}; convert it anew with scripts/convert_weights.py")
        return found
    spec = spec or _frameworks_own(contents)
    return Description(spec.conventions, spec.evaluation, imagenet_classes())


def _frameworks_own(contents: Contents) -> WeightsSpec:
    """What a file follows that says nothing of itself: its framework's own weights of that backbone."""
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
    """The first value that cannot be, and why, or "". `image_size` and `resize` go straight into a config."""
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
        return f"classes are {len(found.classes):,} names, where the top has {outputs:,} outputs"
    return ""
