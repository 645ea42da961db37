"""jaxcat's own layout of weights: the whole backbone, for `--config.model.weights=FILE` of another run.

A head that a run has trained is not in it: `--config.init_from` of the other run takes it from the workdir. The
published classification layers are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict

from jaxcat.errors import ConfigError
from jaxcat.export.appended import DESCRIPTION
from jaxcat.export.in_jax import logits_of
from jaxcat.export.network import ExportedNetwork
from jaxcat.inference.provenance import without_folders
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.plan import folded
from jaxcat.objectives.probabilities import probabilities
from jaxcat.weights.formats import safetensors_file
from jaxcat.weights.load import load_pretrained


def write(path: Path, network: ExportedNetwork, *, weights: str) -> None:
    meta, model = network.meta, network.meta.config.model
    stages = BACKBONES[model.backbone].stages
    if lacking := [stage for stage in stages if stage not in network.params]:
        raise ConfigError(
            f"--format canonical holds a whole backbone, and this run lacks {', '.join(lacking)}: the other run can "
            "begin with this one, --config.init_from=DIR"
        )
    kept = tuple(network.params) if network.has_published_top else stages
    tensors: dict[str, np.ndarray] = {}
    for tree in (network.params, network.stats):
        tensors |= flatten_dict({stage: tree[stage] for stage in kept if stage in tree}, sep="/")
    description = {
        "width": model.width,
        **meta.conventions.to_dict(),
        "evaluation": meta.provenance.get("evaluation"),
        "classes": list(meta.classes) if network.has_published_top else None,
        "provenance": without_folders(meta.provenance),
    }
    safetensors_file.write(path, tensors, description)


def describe(path: Path, text: str, *, classes: Sequence[str]) -> None:
    content = path.read_bytes()
    known = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    path.write_bytes(safetensors.numpy.save(safetensors.numpy.load(content), metadata=known | {DESCRIPTION: text}))


def opened(path: Path, network: ExportedNetwork) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Runs the file's backbone with the head of the classifier, if the head is not in the file."""
    model, top = network.meta.config.model, network.has_published_top
    loaded = load_pretrained(str(path), backbone=model.backbone, width=model.width, with_top=top)
    arrays = folded(network.plan, network.params | loaded.params, network.stats | loaded.stats)
    call, cpu = jax.jit(lambda images: logits_of(network.plan, arrays, images)), jax.devices("cpu")[0]

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = np.asarray(call(jax.device_put(images, cpu)))
        return logits, probabilities(logits)

    return run
