"""When a run, or a stage of it, ends, and what comes next. The answers depend on config and history only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxcat.runs.meta import Meta, best_epoch
from jaxcat.training.optim import is_exact
from jaxcat.training.stages import config_of, entries_of, stages_of, title
from jaxcat.training.writers import CANDIDATES
from jaxcat.wording import counted, first_to_last


def stop_reason(config: ConfigDict, history: Sequence[dict]) -> str:
    """Why training should end after these epochs, or "" to go on; a continued run gets the same answer."""
    if not history:
        return ""
    if is_exact(config):
        return solved(history[-1])
    if reason := reached(config, history):
        return reason
    last, stop = history[-1], config.stop
    best = best_epoch(history)
    if stop.patience and best is not None and last["epoch"] - best["epoch"] >= stop.patience:
        return f"no better validation accuracy in {counted(stop.patience, 'epoch')}"
    return counted(config.epochs, "epoch") if len(history) >= config.epochs else ""


def reached(config: ConfigDict, history: Sequence[dict]) -> str:
    """A sentence if the last epoch has the accuracy that ends the run with all its stages; else ""."""
    stop = config.stop
    accuracy = history[-1][f"{stop.on}/accuracy"] if history else None  # None if nothing was held out
    if stop.accuracy and accuracy is not None and accuracy >= stop.accuracy:
        return f"{stop.on} accuracy {accuracy:.4f} reached {stop.accuracy}"
    return ""


def finished(config: ConfigDict, meta: Meta) -> str:
    """Why a run has nothing left to do, or ""."""
    if not meta.stage:
        return stop_reason(config, meta.history)
    own = entries_of(meta.history, meta.stage)
    return "" if next_stage(config, meta) else of_stage(stop_reason(config_of(config, meta.stage), own), meta)


def of_stage(reason: str, meta: Meta) -> str:
    """The reason, after the stage that ends and its epochs as the run counts them; the same if there are no stages."""
    if not meta.stage:
        return reason
    own = [entry["epoch"] for entry in entries_of(meta.history, meta.stage)]
    epochs = f"epoch {own[0]}" if len(own) == 1 else f"epochs {own[0]} to {own[-1]}"
    return f"stage {meta.stage} of {len(stages_of(meta.asked))} ({epochs}): {reason}"


def next_stage(config: ConfigDict, meta: Meta | None) -> int:
    """The number of the stage that a run with stages begins or continues, or 0 if it is finished."""
    if meta is None:
        return 1
    own = entries_of(meta.history, meta.stage)
    if not stop_reason(config_of(config, meta.stage), own):
        return meta.stage
    over = meta.stage == len(stages_of(config)) or reached(config, own)
    return 0 if over else meta.stage + 1


def following(meta: Meta) -> str:
    """The stage that comes after the one that `meta` describes, in a few words, or ""."""
    number = next_stage(meta.asked, meta) if meta.stage else 0
    return f"stage {title(meta.asked, number)}, follows" if number else ""


def solved(entry: Mapping[str, Any]) -> str:
    """What was solved, in a few words, from the entry of an exact head."""
    chosen, penalty = entry[CANDIDATES]["chosen"], entry[CANDIDATES]["penalty"]
    return f"the head is solved, on {first_to_last(chosen)} with penalty {penalty:.3g}"
