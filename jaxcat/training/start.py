"""The start of a run: whether it fits what is in the workdir, and the network and parameters it begins with."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat.bottlenecks.engines.names import AUTO
from jaxcat.bottlenecks.versions import step_versions
from jaxcat.config import difference
from jaxcat.data.augmentation.table import AUTO as BY_RULE
from jaxcat.errors import ConfigError
from jaxcat.models.completion import chooses_blocks
from jaxcat.models.network import Network, Tree
from jaxcat.runs import checkpoints, recovery
from jaxcat.runs.checkpoints import Checkpoints
from jaxcat.runs.first_meta import new_meta
from jaxcat.runs.meta import Meta, digests, pixel_changes
from jaxcat.runs.restore import network_of
from jaxcat.system.devices import place_replicated, replicated
from jaxcat.training.optim import is_exact
from jaxcat.training.origin import Origin, beginning
from jaxcat.training.stages import config_of
from jaxcat.training.steps import TrainState, items_of, new_state, state_of

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """A run that is about to begin or continue; `first_state` makes the state to train.

    Attributes:
        meta: goes into every checkpoint, with another step and history.
        frozen: `{"params", "stats"}` of the prefix, on the devices.
        trained: the same of the suffix, as NumPy arrays; only shapes if the run continues from a checkpoint.
        resumed: whether the run continues from the checkpoint of `meta.step`.
    """

    network: Network
    meta: Meta
    frozen: Tree
    trained: Tree
    resumed: bool


def previous_run(config: ConfigDict, workdir: Path) -> Meta | None:
    """The meta of the newest good checkpoint in `workdir`, if there is one that `config` may continue.

    Raises:
        ConfigError: the workdir holds a run with another configuration, or any run if `resume=never`.
        CheckpointError: it holds a run, but none of its checkpoints is good.
    """
    recovery.put_back(workdir)
    meta, damaged = recovery.newest_good(workdir)
    if meta is None:
        recovery.warn_of_lost_checkpoints(workdir)
        return None
    if config.resume == "never":
        raise ConfigError(
            f"--config.resume=never: {workdir} already holds a run, at step {meta.step}; use another --workdir"
        )
    before = meta.asked
    keep_found(config, before)
    changes = difference(before, config)
    if changes and (is_exact(before) or "train.stages" in changes or config.resume != "force"):
        raise ConfigError(f"--workdir {workdir}: {_other_settings(changes, exact=is_exact(before))}")
    if is_exact(config) and not is_exact(before):
        raise ConfigError(
            f"--config.optim.name={config.optim.name}: the run in {workdir} was begun with {before.optim.name}, and an "
            "exact head is solved in a new run; choose another --workdir"
        )
    recovery.set_aside(workdir, damaged, good=meta.step)
    _keep_beginning(config, before)
    if config.epochs != before.epochs and config.optim.schedule != "constant" and not config.train.stages:
        logger.warning(
            "--config.epochs=%d, the run was begun with %d: the %s schedule has a new end, so the learning rate jumps",
            *(config.epochs, before.epochs, config.optim.schedule),
        )
    return meta


# What `resume=force` changes in a run. Others decide on records and shapes of arrays, or only on how a run starts.
CAN_BE_FORCED = frozenset(
    {
        *("data.resize", "data.augment", "data.augment_on", "data.erase", "model.dropout", "model.dtype"),
        *("model.train_bn", "model.bn_momentum", "model.remat"),
        *("optim.learning_rate", "optim.schedule", "optim.warmup_epochs", "optim.backbone_scale"),
        *("optim.layer_decay", "optim.accumulate", "optim.mix", "optim.mix_alpha"),
        *("optim.class_weight", "optim.label_smoothing", "bottleneck.views", "bottleneck.dtype", "bottleneck.engine"),
    }
)


MOST_IN_FRONT = 3  # other settings that a message names before the advice


def _other_settings(changes: Mapping[str, tuple[Any, Any]], *, exact: bool) -> str:
    """One sentence: the settings that a run was begun with, those that are asked for, and what can be done.

    Args:
        exact: whether the run has an exact head, which is solved once and cannot go on with other settings.
    """
    pairs = [f"--config.{name}={_shown(old)}, not {_shown(new)}" for name, (old, new) in changes.items()]
    which = "this value" if len(pairs) == 1 else "these values"
    force = ", or add --config.resume=force to continue it with what is asked for now"
    if exact or not changes.keys() <= CAN_BE_FORCED:
        force = ""
    was_recipe = changes.get("optim.name") == ("rmsprop", "exact") and "data.source" not in changes
    if was_recipe and "model.cut" not in changes:
        force = ". The recipes folder and tfds solve the head now; folder:trained is what they were"
    if len(pairs) > MOST_IN_FRONT:
        return (
            f"there is a run with {len(pairs)} other settings: choose another --workdir for a new run, or ask for its "
            f"settings again to continue it{force}. It was begun with {', and '.join(pairs)}"
        )
    return (
        f"the run there was begun with {', and '.join(pairs)}: ask for {which} again to continue it, or choose another "
        f"--workdir for a new run{force}"
    )


def _shown(value: Any) -> str:
    return '""' if value == "" else str(value)


def keep_found(config: ConfigDict, before: ConfigDict) -> None:
    """Replaces settings such as `auto` by the values that the run found, in its data or on its machine."""
    config.data.grey_bits = config.data.grey_bits or before.data.grey_bits
    config.optim.penalty = config.optim.penalty or before.optim.penalty
    if config.optim.find_learning_rate and before.optim.find_learning_rate:
        config.optim.learning_rate = before.optim.learning_rate
    if config.bottleneck.engine == AUTO:
        config.bottleneck.engine = before.bottleneck.engine
    if config.data.augment_on == BY_RULE:
        config.data.augment_on = before.data.augment_on
    if chooses_blocks(config.model):
        config.model.cut, config.model.pool_from = before.model.cut, before.model.pool_from


def _keep_beginning(config: ConfigDict, before: ConfigDict) -> None:
    """Restores settings that only the start of a run uses; its checkpoints are read and repaired with them."""
    sections = (
        (config, before, ("init_from",)),
        (config.model, before.model, ("backbone", "weights", "preprocessing")),
        (config.optim, before.optim, ("find_learning_rate", "average")),  # the second changes what checkpoints hold
    )
    for section, began, names in sections:
        for name in names:
            if section[name] != began[name]:
                logger.warning("--config.resume=force: %s stays %r, as when the run began", name, began[name])
                section[name] = began[name]


def check_pixels(config: ConfigDict, meta: Meta, workdir: Path) -> Meta:
    """Refuses to continue a run whose images were decoded or resized by another version of jaxcat.

    Returns:
        The meta to go on with; it has the present versions if `resume=force` allows the change.

    Raises:
        ConfigError: names the versions.
    """
    if not (changes := pixel_changes(meta)):
        return meta
    if config.resume != "force":
        raise ConfigError(
            f"--workdir {workdir}: it was trained on other pixels ({', '.join(changes)}): continue it with the jaxcat "
            "that began it, or accept the new pixels with --config.resume=force"
        )
    logger.warning("--config.resume=force: from here on the run sees other pixels (%s)", ", ".join(changes))
    return dataclasses.replace(meta, step_versions=step_versions())


def start(
    config: ConfigDict,
    workdir: Path,
    *,
    origin: Origin,
    meta: Meta | None,
    classes: tuple[str, ...],
    mesh: Mesh,
    stage: int = 0,
    request: ConfigDict | None = None,
) -> Start:
    """Begins a run with the parameters of `origin`, continues the one that `meta` describes, or begins its next stage.

    Args:
        config: of the run or, if it has stages, of the one that begins or continues.
        stage, request: go into the meta.
    """
    if meta is not None:
        began, meta = meta, dataclasses.replace(meta, config=config, stage=stage, request=request)
        network = network_of(meta)  # `data.dir` and others may have changed
        if stage != began.stage:
            frozen, trained = _where_it_ended(workdir, began, network=network, mesh=mesh)
            return Start(network, meta, frozen, trained, resumed=False)
        frozen, trained = network.split(*network.shapes())
        return Start(network, meta, _restored_frozen(workdir, began, frozen, mesh=mesh), trained, resumed=True)
    meta = new_meta(config, classes, conventions=origin.conventions, provenance=origin.provenance)
    meta = dataclasses.replace(meta, stage=stage, request=request)
    network = network_of(meta)
    frozen, trained = network.split(*_fill(network, origin, config.seed))
    meta = dataclasses.replace(meta, frozen_digests=digests(frozen))
    return Start(network, meta, place_replicated(mesh, frozen), trained, resumed=False)


def first_state(run: Start, saved: Checkpoints, *, tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state to train, on the devices: from the checkpoint, or new. A new run begins to write its frozen tree.

    It also holds the frozen trees of later stages, because stages never freeze a block again.
    """
    fresh = functools.partial(new_state, tx=tx, metrics=run.meta.metrics, average=bool(run.meta.config.optim.average))
    params, stats = run.trained["params"], run.trained["stats"]
    if run.resumed:
        like = items_of(jax.eval_shape(fresh, params, stats))
        return state_of(checkpoints.restore_items(saved.workdir, run.meta, like=like, sharding=replicated(mesh)))
    if not run.meta.step:
        saved.save_frozen(run.frozen)
    return place_replicated(mesh, fresh(params, stats))


def _where_it_ended(workdir: Path, before: Meta, *, network: Network, mesh: Mesh) -> tuple[Tree, Tree]:
    """What a stage begins with: the arrays of the checkpoint `before`, the last of the stage before it.

    Returns:
        `{"params", "stats"}` of the prefix of `network`, on the devices, and of its suffix, as NumPy arrays.
    """
    ended = network_of(before)
    frozen, trained = ended.split(*ended.shapes())
    frozen = _restored_frozen(workdir, before, frozen, mesh=mesh)
    trained = checkpoints.restore_model(workdir, before, shapes=trained, sharding=replicated(mesh))
    frozen, trained = network.split(*({**frozen[name], **trained[name]} for name in ("params", "stats")))
    return frozen, jax.tree.map(np.asarray, trained)


def _restored_frozen(workdir: Path, meta: Meta, shapes: Tree, *, mesh: Mesh) -> Tree:
    """The part of the frozen tree on disk that has these shapes."""
    again = functools.partial(_frozen_again, meta)
    return recovery.restore_frozen(
        workdir, shapes=shapes, wanted=meta.frozen_digests, sharding=replicated(mesh), again=again
    )


def _frozen_again(meta: Meta) -> Tree:
    """The frozen tree of a run, made again from the origin of the run that `meta` describes."""
    config = config_of(meta.asked, 1) if meta.stage else meta.config
    network, origin = network_of(dataclasses.replace(meta, config=config)), beginning(config, meta.classes)
    return network.split(*_fill(network, origin, config.seed))[0]


def _fill(network: Network, origin: Origin, seed: int) -> tuple[Tree, Tree]:
    """The parameters and statistics that `origin` has; new ones for other stages, and for a head of another shape."""
    shapes = {stage: leaves for stage, leaves in network.shapes()[0].items() if network.is_head(stage)}
    head = {stage: leaves for stage, leaves in origin.params.items() if network.is_head(stage)}
    reuse_head = jax.tree.map(np.shape, head) == jax.tree.map(np.shape, shapes)
    taken = {stage for stage in origin.params if reuse_head or not network.is_head(stage)}
    params, stats = network.initialize(seed, stages=[stage for stage in network.stages if stage not in taken])
    for stage in network.stages:
        if stage in taken:
            params[stage], stats[stage] = origin.params[stage], origin.stats[stage]
    origin.provenance["head"] = "the same run's" if reuse_head and head else "new"
    return params, stats
