"""Classifiers with random numbers, which need no training, and what an export of them is compared with."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxcat.config import default
from jaxcat.inference.classifier import Classifier
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.completion import complete
from jaxcat.models.network import Network
from jaxcat.models.preprocessing import Conventions
from jaxcat.runs.calibration import Calibration
from jaxcat.runs.first_meta import new_meta
from jaxcat.runs.restore import Restored, network_of
from jaxcat.system.devices import make_mesh, place_replicated


def classifier_of(
    conventions: Conventions | None = None,
    *,
    classes: tuple[str, ...] = ("cat", "dog"),
    published: bool = False,
    temperature: float | None = None,
    **settings: Any,
) -> Classifier:
    """A narrow Inception-v3 cut at mixed0, at 75 pixels; `settings` are changes, `section__name=value`."""
    config = default()
    narrow = {"model__width": 1 / 16, "model__cut": "mixed0", "data__image_size": 75, "model__weights": "none"}
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in (narrow | settings).items()})
    complete(config)
    meta = new_meta(config, classes, conventions=conventions or Conventions(), provenance={"source": "scratch"})
    network = network_of(meta, top=BACKBONES[config.model.backbone].top if published else None)
    frozen, trained = place_replicated(make_mesh(), network.split(*numbers(network)))
    restored = Restored(meta, network, frozen, trained)
    of = temperature and Calibration(temperature, 0, "", "xla", "validation", 1, "", {}, {})
    return Classifier(meta, restore=lambda: restored, calibration=of or None)


def numbers(network: Network) -> tuple[Any, Any]:
    """Random parameters and statistics, none of which is 0 or 1, that keep activations of order one."""
    generator = np.random.default_rng(0)

    def changed(path: tuple, leaf: np.ndarray) -> np.ndarray:
        kind = path[-1].key
        if kind == "kernel" and path[1].key == "logits":
            return 5 * leaf  # answers that differ
        if kind == "kernel":
            return leaf
        drawn = generator.uniform(0.5, 1.5, leaf.shape) if kind == "var" else generator.normal(0, 0.2, leaf.shape)
        return drawn.astype(np.float32)

    return jax.tree_util.tree_map_with_path(changed, network.initialize(0))
