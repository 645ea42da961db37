"""Which engine computes the bottlenecks of a run: a rule, applied once before the run begins."""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

from jaxcat.bottlenecks.engines.litert import INSTALL, interpreter
from jaxcat.bottlenecks.engines.names import AUTO, LEAST_RECORDS, XLA, unsupported
from jaxcat.data.records import Data
from jaxcat.errors import ConfigError, EngineError
from jaxcat.training.stages import stages_of

CHOSEN = "litert_int8"  # what `auto` means where it can be used; the grounds are in docs/benchmarks.md


def check_engine(config: ConfigDict, *, begun: bool) -> None:
    """Checks that the engine that was asked for can be used here; `auto` always can.

    Args:
        begun: whether the run was begun before, with this engine.

    Raises:
        ConfigError: LiteRT on an accelerator, in a run of several processes, or for a network that it cannot compute.
        EngineError: no interpreter is installed.
    """
    engine = config.bottleneck.engine
    if engine in (AUTO, XLA):
        return
    flag = f"--config.bottleneck.engine={engine}"
    instead = f"set it to {XLA}"
    if begun:
        instead = f"the run was begun with it; to go on with other numbers, set it to {XLA} with --config.resume=force"
    if why := _impossible(config):
        raise ConfigError(f"{flag}: {why}; {instead}")
    if interpreter() is None:
        raise EngineError(f"{flag} needs an interpreter, and none is installed: {INSTALL}; or {instead}")


def settle_engine(config: ConfigDict, data: Data) -> None:
    """Replaces `bottleneck.engine=auto` by an engine.

    It is LiteRT with 8-bit weights if this is one process on a CPU, an interpreter is installed, the network is frozen
    in every stage of the run and computed in float32, and train and validation have at least `LEAST_RECORDS` records,
    for which converting saves time. The rule does not ask what is in the cache, so that two equal runs never differ.
    """
    if config.bottleneck.engine == AUTO:
        records = sum(len(data.splits[name]) for name in ("train", "validation"))
        frozen = all(stage.train_from == "head" for stage in stages_of(config))
        possible = records >= LEAST_RECORDS and frozen and not _impossible(config) and interpreter() is not None
        config.bottleneck.engine = CHOSEN if possible else XLA


def _impossible(config: ConfigDict) -> str:
    """Why LiteRT cannot be used in this run, whether it is installed or not; "" if it can."""
    if jax.default_backend() != "cpu":
        return f"it computes on the CPU, and this run uses {jax.default_backend()}"
    if jax.process_count() > 1:
        return "it needs a run of one process"
    return unsupported(config)
