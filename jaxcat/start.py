"""How a run starts: which numbers it begins with, and whether the workdir lets it."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat import checkpoint_meta, checkpoints, inception, recovery
from jaxcat.classifier import load, versions
from jaxcat.config import completed, difference, pooled_blocks
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.network import HEAD, Network, Tree
from jaxcat.sharding import place_replicated, replicated
from jaxcat.steps import TrainState, new_state
from jaxcat.weights import load_pretrained
from jaxcat.weights.registry import MINUS_ONE_TO_ONE, ZERO_TO_ONE, Preprocessing

logger = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Numbers a run begins with, and what they were trained to see.

    Attributes:
        provenance: where they come from, plain JSON.
        params, stats: by stage; stages that are not there start fresh.
    """

    provenance: dict[str, Any]
    preprocessing: Preprocessing
    pool_counts_padding: bool
    params: Tree
    stats: Tree


class Start(NamedTuple):
    """A run about to begin or to go on; `first_state` gives it the state to train.

    Attributes:
        frozen: `{"params", "stats"}` of the prefix, on the devices.
        trained, stats: of the suffix, numpy; only their shapes where a checkpoint has the numbers.
        checkpoint: step of the checkpoint to go on from, or None.
        history: the epoch records so far.
        meta: goes into every checkpoint, with the history.
    """

    network: Network
    frozen: Tree
    trained: Tree
    stats: Tree
    checkpoint: int | None
    history: list[dict]
    meta: dict[str, Any]


def previous_run(config: ConfigDict, workdir: Path) -> dict | None:
    """The meta of the newest good checkpoint in `workdir`, if there is one that `config` may continue.

    Raises:
        ConfigError: the workdir holds a run that was configured otherwise, or `resume=never`.
        CheckpointError: it holds a run, and none of its checkpoints is good.
    """
    recovery.put_back(workdir)
    meta, damaged = recovery.newest_good(workdir)
    if meta is None:
        recovery.warn_of_lost_checkpoints(workdir)
        return None
    if config.resume == "never":
        raise ConfigError(
            f"--config.resume=never: {workdir} already holds a run, at step {meta['step']}; use another --workdir"
        )
    before = completed(meta["config"])
    changes = difference(before, config)
    if changes and config.resume != "force":
        raise ConfigError(
            f"--workdir {workdir} holds a run with another configuration:\n  " + "\n  ".join(changes) + "\n"
            "use another --workdir, or continue it all the same with --config.resume=force"
        )
    recovery.set_aside(workdir, damaged, good=meta["step"])
    _keep_beginning(config, before)
    if config.epochs != before.get("epochs") and config.optim.schedule != "constant":
        logger.warning(
            "--config.epochs=%d, the run was begun with %d: the %s schedule now ends there, so the learning rate jumps",
            *(config.epochs, before.get("epochs"), config.optim.schedule),
        )
    return meta


def _keep_beginning(config: ConfigDict, before: ConfigDict) -> None:
    """Set back what only the beginning of a run can use: its checkpoints are read and repaired by it."""
    for section, name in ((config, "init_from"), (config.model, "weights"), (config.model, "preprocessing")):
        began_with = (before if section is config else before.model)[name]
        if section[name] != began_with:
            logger.warning("--config.resume=force: %s stays %r, with which the run began", name, began_with)
            section[name] = began_with


def find_origin(config: ConfigDict, workdir: Path, *, meta: dict | None, classes: tuple[str, ...]) -> Origin:
    """Which numbers a run begins with. The first of these that applies:

    1. its own checkpoint in the workdir (`meta`, from `previous_run`); `start` restores it;
    2. another run, `init_from`: its best backbone, and its head if classes, pooled features and shapes agree;
    3. pretrained weights, `model.weights`, under a fresh head;
    4. scratch.

    Called before any picture is decoded: a damaged weights file should not be found out an hour later.
    """
    if meta is not None:
        if tuple(meta["classes"]) != classes:
            raise ConfigError(
                f"--workdir {workdir}: trained on classes {meta['classes']}, the data have {list(classes)}"
            )
        _check_train_bn(config, meta["provenance"], where=f"the run in --workdir {workdir}")  # resume=force may ask
        preprocessing, padding = Preprocessing.from_dict(meta["preprocessing"]), meta["pool_counts_padding"]
        return Origin(meta["provenance"], preprocessing, padding, {}, {})
    return _beginning(config, classes)


def _beginning(config: ConfigDict, classes: tuple[str, ...]) -> Origin:
    """What a run without a checkpoint of its own begins with: 2, 3 or 4 of `find_origin`."""
    if config.init_from:
        return from_run(config, classes)
    if config.model.weights != "none":
        return from_weights(config)
    return Origin({"source": "scratch"}, _preprocessing(config, MINUS_ONE_TO_ONE), False, {}, {})


def make_network(config: ConfigDict, origin: Origin, *, classes: tuple[str, ...]) -> Network:
    """The network that `config` describes, fed and pooled as the numbers of `origin` were trained."""
    return Network(
        config.model,
        classes=len(classes),
        image_size=config.data.image_size,
        preprocessing=origin.preprocessing,
        pool_counts_padding=origin.pool_counts_padding,
    )


def start(
    config: ConfigDict,
    workdir: Path,
    *,
    network: Network,
    origin: Origin,
    meta: dict | None,
    classes: tuple[str, ...],
    mesh: Mesh,
) -> Start:
    """Begin a run with the numbers of `origin`, or go on with the one that `meta` describes."""
    params, stats = network.shapes() if meta is not None else _fill(network, origin, config.seed)
    (frozen_params, trained), (frozen_stats, trained_stats) = network.divide(params), network.divide(stats)
    frozen = {"params": frozen_params, "stats": frozen_stats}
    if meta is not None:
        frozen = recovery.restore_frozen(
            workdir,
            shapes=frozen,
            wanted=meta["frozen_digests"],
            sharding=replicated(mesh),
            again=functools.partial(_frozen_again, meta, network),
        )
        kept = {key: value for key, value in meta.items() if key not in ("digests", "history", "step")}
        kept["config"] = config.to_dict()  # data.dir and others may have changed, and later readers go by it
        return Start(network, frozen, trained, trained_stats, meta["step"], meta["history"], kept)
    meta = {
        "config": config.to_dict(),
        "classes": list(classes),
        "preprocessing": origin.preprocessing.to_dict(),
        "pool_counts_padding": origin.pool_counts_padding,
        "provenance": origin.provenance,
        "frozen_digests": checkpoint_meta.digests(frozen),
        "versions": versions(),
    }
    return Start(network, place_replicated(mesh, frozen), trained, trained_stats, None, [], meta)


def first_state(run: Start, workdir: Path, *, tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state to train, on the devices: from the checkpoint, or new, with the frozen tree written to the workdir."""
    if run.checkpoint is not None:
        like = jax.eval_shape(lambda trained, stats: new_state(trained, stats, tx), run.trained, run.stats)
        return checkpoints.restore_state(workdir, run.checkpoint, like=like, sharding=replicated(mesh))
    checkpoints.save_frozen(workdir, run.frozen)
    return place_replicated(mesh, new_state(run.trained, run.stats, tx))


def _frozen_again(meta: dict, network: Network) -> Tree:
    """The frozen numbers from where the run that `meta` describes once took them."""
    config = completed(meta["config"])
    params, stats = _fill(network, _beginning(config, tuple(meta["classes"])), config.seed)
    return {"params": network.divide(params)[0], "stats": network.divide(stats)[0]}


def from_run(config: ConfigDict, classes: tuple[str, ...]) -> Origin:
    """The best step of the run in `init_from`.

    Raises:
        ConfigError: its width, cut, preprocessing or normalisation cannot serve this configuration.
    """
    try:
        other = load(config.init_from, step="best")
    except CheckpointError as error:
        raise ConfigError(f"--config.init_from={config.init_from}: {error}") from error
    theirs, ours = other.config.model, config.model
    where = f"--config.init_from={config.init_from}"
    if theirs.width != ours.width:
        raise ConfigError(
            f"{where} has width {theirs.width}: set --config.model.width={theirs.width}, not {ours.width}"
        )
    blocks = list(inception.STAGES)
    if blocks.index(ours.cut) > blocks.index(theirs.cut):
        raise ConfigError(
            f"{where} ends at {theirs.cut}: --config.model.cut={ours.cut} is beyond; use at most {theirs.cut}"
        )
    _check_train_bn(config, other.meta["provenance"], where=where)
    preprocessing = other.network.preprocessing
    if _preprocessing(config, preprocessing) != preprocessing:
        raise ConfigError(
            f"{where} was trained on pixels normalised by mean {preprocessing.mean}, std {preprocessing.std}: "
            f"--config.model.preprocessing={ours.preprocessing} would feed it others; use weights"
        )
    params, stats = dict(other.params), dict(other.stats)
    if other.classes != classes or _features(theirs) != _features(ours):
        params = {stage: tree for stage, tree in params.items() if stage not in HEAD}
        stats = {stage: tree for stage, tree in stats.items() if stage not in HEAD}
    provenance = {"source": "run", "workdir": config.init_from, "step": other.step, "before": other.meta["provenance"]}
    return Origin(provenance, preprocessing, other.network.pool_counts_padding, params, stats)


def _features(model: ConfigDict) -> tuple[tuple[str, ...], str, int]:
    """What a head sees: equal shapes are no proof of equal features."""
    return pooled_blocks(model), model.pool, model.pool_grid


def from_weights(config: ConfigDict) -> Origin:
    """Pretrained weights by registry name or file.

    Raises:
        ConfigError: `train_bn`, and BatchNorm's scale is folded into their kernels.
        WeightsError: see `load_pretrained`.
    """
    found = load_pretrained(config.model.weights, cut=config.model.cut, width=config.model.width)
    _check_train_bn(config, found.provenance, where=f"--config.model.weights={config.model.weights}")
    preprocessing = _preprocessing(config, found.preprocessing)
    return Origin(found.provenance, preprocessing, found.pool_counts_padding, found.params, found.stats)


def _check_train_bn(config: ConfigDict, provenance: Any, *, where: str) -> None:
    """Batch statistics would divide out again a scale that was folded into the kernels, here or in an origin's origin.

    Raises:
        ConfigError: `train_bn` for such numbers.
    """
    while config.model.train_bn and isinstance(provenance, dict):  # a file says of itself what it likes
        if str(provenance.get("batch_norm_scale")).startswith("folded"):
            raise ConfigError(
                f"--config.model.train_bn=True: BatchNorm's scale in {where} is folded into the kernels, which is "
                "exact with stored statistics only; use False"
            )
        provenance = provenance.get("before")


def _preprocessing(config: ConfigDict, of_weights: Preprocessing) -> Preprocessing:
    return ZERO_TO_ONE if config.model.preprocessing == "zero_one" else of_weights


def _fill(network: Network, origin: Origin, seed: int) -> tuple[Tree, Tree]:
    """Fresh numbers, with those of `origin` in place of theirs; a head of another shape stays fresh."""
    params, stats = network.initialize(seed)
    shapes = jax.tree.map(np.shape, params)
    head = {s: origin.params[s] for s in HEAD if s in origin.params}
    reuse_head = jax.tree.map(np.shape, head) == {s: shapes[s] for s in HEAD if s in shapes}
    for stage in network.stages:
        if stage in origin.params and (stage not in HEAD or reuse_head):
            params[stage], stats[stage] = origin.params[stage], origin.stats[stage]
    origin.provenance["head"] = "the same run's" if reuse_head and head else "new"
    return params, stats
