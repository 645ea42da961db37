"""The meta with which a run begins."""

from __future__ import annotations

from typing import Any

import jax
from ml_collections import ConfigDict

from jaxcat.bottlenecks.versions import step_versions
from jaxcat.models.preprocessing import Conventions
from jaxcat.objectives.metrics import metrics_for
from jaxcat.runs.meta import Meta
from jaxcat.system.versions import installed_versions


def new_meta(
    config: ConfigDict, classes: tuple[str, ...], *, conventions: Conventions, provenance: dict[str, Any]
) -> Meta:
    """The meta of a run that begins now, with this version of jaxcat; its frozen tree has no digests yet."""
    return Meta(
        config=config,
        classes=classes,
        conventions=conventions,
        provenance=provenance,
        frozen_digests={},
        versions=package_versions(),
        step_versions=step_versions(),
        metrics=metrics_for(len(classes)),
    )


def package_versions() -> dict[str, str]:
    """Versions of the packages that affect results, and the kind of device."""
    names = ("jaxcat", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
    return dict.fromkeys(names, "not installed") | installed_versions(*names) | {"backend": jax.default_backend()}
