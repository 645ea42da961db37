"""The stages of one run: which part each trains, for how many epochs and at which learning rate.

    --config.train.stages="head::exact, mixed8:5:1e-5, mixed4:10:1e-5"

first solves the head on frozen blocks, then trains the head and the blocks from mixed8 on for 5 epochs, then those from
mixed4 on for 10. Each stage equals a run of its own that starts with `init_from` from the latest checkpoint of the
stage before. Its epochs and steps count from 0, so that it gets the same images in the same order; its optimizer and
schedule start anew; and it ends as `stop.patience` says. Only the names of its checkpoints and the numbers in the
history continue.

This module imports no framework: commands check requests with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxcat.config import default, flatten
from jaxcat.errors import ConfigError
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.completion import chooses_blocks
from jaxcat.settings import SETTINGS
from jaxcat.training.optim import is_exact
from jaxcat.training.requests import NEEDED
from jaxcat.wording import not_one_of

FLAG = "--config.train.stages"
EXACT = "exact"
# Settings of trained blocks → the value that a stage has which trains the head alone.
OF_BLOCKS = {"model.train_bn": False, "model.remat": False, "optim.layer_decay": 1.0}


class Stage(NamedTuple):
    """One stage of a run.

    Attributes:
        train_from: the first trained stage of the network, as in `model.train_from`.
        epochs: passes over all train records.
        learning_rate: as `optim.learning_rate`; None if the head is solved.
    """

    train_from: str
    epochs: int
    learning_rate: float | None

    def __str__(self) -> str:
        return f"{self.train_from}::{EXACT}" if self.learning_rate is None else ":".join(map(str, self))


def stages_of(config: ConfigDict) -> tuple[Stage, ...]:
    """The stages that a configuration asks for; () if it asks for a run without stages.

    Raises:
        ConfigError: `train.stages` is not understood, or its stages are in an impossible order.
    """
    if not config.train.stages:
        return ()
    blocks = BACKBONES[config.model.backbone].stages
    found = tuple(_parsed(text.strip(), blocks) for text in config.train.stages.split(","))
    places = [(*blocks, "head").index(stage.train_from) for stage in found]
    for number, (before, here) in enumerate(zip(places, places[1:], strict=False), start=1):
        if here > before:
            raise _refused(found[number], f"begins after {found[number - 1].train_from}: a stage may not freeze blocks")
        if found[number].learning_rate is None:
            raise _refused(found[number], "only the first stage can be exact: it would forget the head before it")
    if all(stage.learning_rate is None for stage in found):
        raise _refused(found[0], "nothing follows: leave train.stages empty and set --config.optim.name=exact")
    return found


def _parsed(text: str, blocks: Sequence[str]) -> Stage:
    """The stage that `FROM:EPOCHS:RATE` or `head::exact` describes."""
    train_from, epochs, rate = (*text.split(":"), "", "")[:3]
    if text.count(":") != 2:
        raise _refused(text, "a stage is FROM:EPOCHS:LEARNING_RATE, such as mixed8:5:1e-5, or head::exact")
    if problem := not_one_of(train_from, ("head", *blocks)):
        raise _refused(text, f"{train_from} {problem}")
    if rate == EXACT:
        if train_from != "head" or epochs:
            raise _refused(text, f"only the head alone can be solved, without epochs: write head::{EXACT}")
        return Stage(train_from, 1, None)
    try:
        stage = Stage(train_from, int(epochs), float(rate))
    except ValueError:
        raise _refused(text, "the number of epochs is a whole number, the learning rate a number") from None
    for name, value in (("epochs", stage.epochs), ("optim.learning_rate", stage.learning_rate)):
        if problem := SETTINGS[name].problem(value):
            raise _refused(text, f"{name} {value} {problem}")
    return stage


def _refused(stage: Stage | str, why: str) -> ConfigError:
    return ConfigError(f"{FLAG}: {stage}: {why}")


def check_stages(config: ConfigDict) -> None:
    """Checks what a run with stages asks for beside them.

    Raises:
        ConfigError: names the flag, the value received and what is needed.
    """
    stages = stages_of(config)
    if not stages:
        return
    if is_exact(config):
        raise ConfigError(
            f"--config.optim.name=exact with {FLAG}: name the optimizer of the stages that are trained, such as adam; "
            "a head is solved by the stage head::exact"
        )
    if config.model.train_from != "head":
        raise ConfigError(
            f"--config.model.train_from={config.model.train_from} with {FLAG}: each stage says from where it trains; "
            "leave train_from as it is"
        )
    if chooses_blocks(config.model):
        raise ConfigError(
            f"--config.model.pool_from=auto without --config.model.cut chooses blocks for a solved head, and {FLAG} "
            "trains more: name the last block with --config.model.cut"
        )
    if config.optim.find_learning_rate:
        raise ConfigError(
            f"--config.optim.find_learning_rate=True with {FLAG}: the stages name their learning rates; leave it off"
        )
    if config.optim.penalty and stages[0].learning_rate is not None:
        raise ConfigError(f"--config.optim.penalty={config.optim.penalty:g} needs the stage head::exact in {FLAG}")


def check_each(config: ConfigDict, check: Callable[[ConfigDict], None]) -> None:
    """Checks every stage of a run as a run of its own, or a run without stages.

    Raises:
        ConfigError: what `check` raises, after the stage that it is about.
    """
    if not config.train.stages:
        check(config)
    for number in range(1, 1 + len(stages_of(config))):
        try:
            check(config_of(config, number))
        except ConfigError as error:
            raise ConfigError(f"{FLAG} (stage {title(config, number)}): {error}") from error


def config_of(config: ConfigDict, number: int) -> ConfigDict:
    """The configuration of a run that is this stage alone.

    Args:
        config: of the whole run.
        number: of the stage, from 1.
    """
    stage = stages_of(config)[number - 1]
    changes: dict[str, Any] = {"model.train_from": stage.train_from, "epochs": stage.epochs}
    if stage.train_from == "head":
        changes |= OF_BLOCKS
    if stage.learning_rate is None:
        # A hidden layer is not switched off but refused: the other stages would have it.
        changes |= {name: value for name, (value, _) in NEEDED.items() if name != "model.hidden"}
        changes["optim.name"] = EXACT
    else:
        changes |= {"optim.learning_rate": stage.learning_rate, "optim.penalty": 0.0}
    of_stage = config.copy_and_resolve_references()
    of_stage.update_from_flattened_dict(changes)
    return of_stage


def epochs_of(config: ConfigDict) -> int:
    """The number of epochs of a run; a stage that solves the head counts as one."""
    return sum(stage.epochs for stage in stages_of(config)) or config.epochs


def entries_of(history: Sequence[Mapping[str, Any]], stage: int) -> list[Any]:
    """The entries of one stage of a run with stages, and all entries of a run without, which is stage 0."""
    return [entry for entry in history if entry.get("stage", 0) == stage]


def beginnings_of(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """(epoch, stage) of the first epoch of each stage after the first; [] for a run without stages."""
    return [
        (here["epoch"], here["stage"])
        for before, here in zip(history, history[1:], strict=False)
        if here.get("stage", 0) != before.get("stage", 0)
    ]


def title(config: ConfigDict, number: int) -> str:
    """A stage in a few words: `2 of 3, mixed8:5:1e-05`."""
    stages = stages_of(config)
    return f"{number} of {len(stages)}, {stages[number - 1]}"


def unused(config: ConfigDict) -> list[str]:
    """The settings that differ from their defaults, by the recipe or the command, and that the stages replace."""
    values, defaults = flatten(config), flatten(default())
    names = ("epochs", "optim.learning_rate")
    return [f"{name}={values[name]}" for name in names if values[name] != defaults[name]]
