"""The origin of a run's first parameters: its own checkpoint, another run, pretrained weights, or scratch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.models.backbone import BACKBONES, pooled_blocks
from jaxcat.models.network import Tree
from jaxcat.models.preprocessing import ZERO_TO_ONE, Conventions
from jaxcat.runs.meta import Meta
from jaxcat.runs.restore import restore
from jaxcat.weights.download import place_of
from jaxcat.weights.load import load_pretrained
from jaxcat.weights.registry import REGISTRY


class Origin(NamedTuple):
    """The parameters and statistics that a run begins with, and their conventions.

    Attributes:
        provenance: where the parameters come from, plain JSON.
        conventions: how pixels are scaled, and the pooling rule.
        params, stats: by stage; a stage that is missing gets new values.
    """

    provenance: dict[str, Any]
    conventions: Conventions
    params: Tree
    stats: Tree


def find_origin(config: ConfigDict, workdir: Path, *, meta: Meta | None, classes: tuple[str, ...]) -> Origin:
    """The origin of a run: the first of these that applies.

    1. its own checkpoint in the workdir (`meta`, from `previous_run`); `start` restores it;
    2. another run, `init_from`: its best checkpoint, without the head if classes, features or shapes differ;
    3. pretrained weights, `model.weights`, under a fresh head;
    4. scratch.

    Called before any image is decoded, so that a damaged weights file is reported at once.
    """
    if meta is not None:
        if meta.classes != classes:
            raise ConfigError(
                f"--workdir {workdir}: trained on classes {list(meta.classes)}, but the data have {list(classes)}"
            )
        check_train_bn(config, meta.provenance, where=f"the run in --workdir {workdir}")  # may be new with resume=force
        return Origin(meta.provenance, meta.conventions, {}, {})
    return beginning(config, classes)


def beginning(config: ConfigDict, classes: tuple[str, ...]) -> Origin:
    """The origin of a run without a checkpoint of its own: 2, 3 or 4 of `find_origin`."""
    if config.init_from:
        return from_run(config, classes)
    if config.model.weights != "none":
        return from_weights(config)
    return Origin({"source": "scratch"}, _fed(config, Conventions()), {}, {})


def will_be_downloaded(config: ConfigDict) -> bool:
    """Whether a new run needs published weights that are not in the cache yet."""
    spec = None if config.init_from else REGISTRY.get(config.model.weights)
    return spec is not None and not place_of(spec).exists()


def from_run(config: ConfigDict, classes: tuple[str, ...]) -> Origin:
    """The origin from the best checkpoint of the run in `init_from`.

    Raises:
        ConfigError: its backbone, width, cut, preprocessing or BatchNorm does not fit this configuration.
    """
    try:
        other = restore(config.init_from, step="best")
    except CheckpointError as error:
        reason = str(error).removeprefix(f"--workdir {config.init_from}: ")
        raise ConfigError(f"--config.init_from={config.init_from}: {reason}") from error
    theirs, ours = other.meta.config.model, config.model
    where = f"--config.init_from={config.init_from}"
    for name in ("backbone", "width"):
        if theirs[name] != ours[name]:
            raise ConfigError(
                f"{where} has {name} {theirs[name]}: set --config.model.{name}={theirs[name]}, not {ours[name]}"
            )
    place = BACKBONES[ours.backbone].stages.index
    if place(ours.cut) > place(theirs.cut):
        raise ConfigError(
            f"{where} ends at {theirs.cut}: --config.model.cut={ours.cut} lies beyond; use at most {theirs.cut}"
        )
    check_train_bn(config, other.meta.provenance, where=where)
    conventions = other.meta.conventions
    if _fed(config, conventions) != conventions:
        preprocessing = conventions.preprocessing
        raise ConfigError(
            f"{where} was trained on pixels normalised by mean {preprocessing.mean}, std {preprocessing.std}: "
            f"--config.model.preprocessing={ours.preprocessing} would change them; set it to weights"
        )
    params, stats = ({**other.frozen[name], **other.trained[name]} for name in ("params", "stats"))
    if other.meta.classes != classes or _features(theirs) != _features(ours):
        params, stats = (
            {stage: leaves for stage, leaves in tree.items() if not other.network.is_head(stage)}
            for tree in (params, stats)
        )
    before = {"step": other.meta.step, "before": other.meta.provenance}
    return Origin({"source": "run", "workdir": config.init_from, **before}, conventions, params, stats)


def _features(model: ConfigDict) -> tuple[tuple[str, ...], str, int]:
    """What determines the features of a head; compared because other features may have the same shapes."""
    return pooled_blocks(model), model.pool, model.pool_grid


def from_weights(config: ConfigDict) -> Origin:
    """The origin from pretrained weights: a name in the registry, or a file.

    Raises:
        ConfigError: `train_bn` is True and BatchNorm's scale is folded into the kernels.
        WeightsError: see `load_pretrained`.
    """
    model = config.model
    found = load_pretrained(model.weights, backbone=model.backbone, cut=model.cut, width=model.width)
    check_train_bn(config, found.provenance, where=f"--config.model.weights={model.weights}")
    return Origin(found.provenance, _fed(config, found.conventions), found.params, found.stats)


def check_train_bn(config: ConfigDict, provenance: Any, *, where: str) -> None:
    """Refuses `train_bn` if BatchNorm's scale was folded into the kernels, in this origin or an earlier one.

    Batch statistics would remove the scale again.

    Raises:
        ConfigError: `train_bn` is True and the scale was folded.
    """
    while config.model.train_bn and isinstance(provenance, dict):  # provenance from a file may be anything
        if str(provenance.get("batch_norm_scale")).startswith("folded"):
            raise ConfigError(
                f"--config.model.train_bn=True: BatchNorm's scale in {where} is folded into the kernels, which is "
                "exact with stored statistics only; use False"
            )
        provenance = provenance.get("before")


def _fed(config: ConfigDict, conventions: Conventions) -> Conventions:
    """The conventions of the weights, with the scaling of pixels that `model.preprocessing` asks for."""
    if config.model.preprocessing == "zero_one":
        return dataclasses.replace(conventions, preprocessing=ZERO_TO_ONE)
    return conventions
