"""One epoch: train steps over all records of train, then one exact validation."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from jaxcat.data.streaming import Source
from jaxcat.errors import TrainingError
from jaxcat.models.network import Network, Tree
from jaxcat.objectives.sums import averages
from jaxcat.system.compilation import PROGRAMS_KEPT, jit
from jaxcat.system.devices import replicated
from jaxcat.training.optim import make_optimizer
from jaxcat.training.queue import InLine
from jaxcat.training.reporting import Pace, Reporter
from jaxcat.training.start import Start
from jaxcat.training.steps import Batch, TrainState, jitted_eval_step, make_train_step, repeated, steps_in

SMALLER_STEPS = (
    "the last good checkpoint is kept. Start a new --workdir with a smaller --config.optim.learning_rate, or "
    "--config.optim.clip_norm=1"
)


class Plan:
    """Numbers of images and steps.

    Attributes:
        images, validation: in train and in validation, which may have none.
        batch_size: of training, over all devices and hosts.
        steps: number of steps in an epoch.
        epochs_before: number of epochs of earlier stages.
    """

    def __init__(self, config: ConfigDict, *, images: int, validation: int, history: Sequence[dict] = ()):
        """Takes the `history` of the earlier stages."""
        self.images, self.validation, self.batch_size = images, validation, config.batch_size
        self.steps = math.ceil(images / config.batch_size)
        self.epochs_before, self._steps_before = len(history), history[-1]["step"] if history else 0
        self._every = config.checkpoint.every_steps

    def step_of(self, state: TrainState) -> int:
        """The number of steps of the whole run, all stages included; a state counts only those of its stage."""
        return self._steps_before + int(state.step)

    def saves_after(self, epoch: int, step: int) -> bool:
        """Whether a checkpoint is due after step `step` of an epoch, before the end of the epoch."""
        return bool(self._every) and (epoch * self.steps + step) % self._every == 0 and step < self.steps


class Program(NamedTuple):
    """The two functions that run on the devices; each is compiled at its first call.

    Attributes:
        take: (state, batch) → state; reuses the memory of the given state (donation).
        evaluate: (state, batch) → masked sums.
        metrics: names of the metrics besides the loss.
    """

    take: Callable[[TrainState, Batch], TrainState]
    evaluate: Callable[[TrainState, Batch], dict[str, jax.Array]]
    metrics: tuple[str, ...]


@functools.lru_cache(maxsize=PROGRAMS_KEPT)
def optimizer_of(
    network: Network, optim: FrozenConfigDict, *, steps: int, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optimizer of a run of so many steps; equal arguments give the same object, as `compile_steps` needs it."""
    return make_optimizer(optim, network.labels, steps=steps, steps_per_epoch=steps_per_epoch, blocks=network.blocks)


def compile_steps(
    config: ConfigDict, run: Start, *, tx: optax.GradientTransformation, labels: np.ndarray, mesh: Mesh
) -> Program:
    """The program of one run; `labels` are those of train, for `optim.class_weight`.

    A run whose network, `optimizer_of` and options another run of this process has had gets that one's compiled steps.
    """
    metrics, line = run.meta.metrics, InLine()
    options = step_options(config, run, labels=labels)
    one, several = _train_steps(run.network, tx, mesh, keep_barriers=saves_memory(config), **options)
    evaluated = jitted_eval_step(run.network, metrics, mesh)

    def take(state: TrainState, batch: Batch) -> TrainState:
        state = (several if steps_in(batch) > 1 else one)(state, run.frozen, batch)
        line.add(jnp.copy(state.step))  # a copy: the next step reuses the state's memory
        return state

    def evaluate(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        sums = evaluated(state.model, state.stats, run.frozen, batch)[1]
        line.add(sums["count"])
        return sums

    return Program(take, evaluate, metrics)


@functools.lru_cache(maxsize=PROGRAMS_KEPT)
def _train_steps(
    network: Network, tx: optax.GradientTransformation, mesh: Mesh, *, keep_barriers: bool, **options: Any
) -> tuple[Callable[[TrainState, Tree, Batch], TrainState], ...]:
    """The train step, and the same over several batches, with the options of `make_train_step`."""
    step = make_train_step(network, tx, **options)
    return tuple(
        jit(function, keep_barriers=keep_barriers, donate_argnums=0, out_shardings=replicated(mesh))
        for function in (step, repeated(step))
    )


def saves_memory(config: ConfigDict) -> bool:
    """Whether the step computes values again, or goes through a batch in parts, in order to save memory."""
    return config.model.remat or config.optim.accumulate > 1


def step_options(config: ConfigDict, run: Start, *, labels: np.ndarray) -> dict[str, Any]:
    """The options of `make_train_step` for a run whose train has these labels."""
    balanced = None
    if config.optim.class_weight == "balanced":
        balanced = tuple(class_weights(labels, run.network.classes).tolist())
    names = ("label_smoothing", "average", "accumulate", "mix", "mix_alpha")
    options = {name: config.optim[name] for name in names}
    return {"seed": config.seed, "metrics": run.meta.metrics, "class_weights": balanced, **options}


def run_epoch(
    state: TrainState,
    *,
    epoch: int,
    plan: Plan,
    program: Program,
    source: Source,
    report: Reporter,
    save: Callable[[TrainState], None],
    stop: Callable[[], int],
) -> tuple[TrainState, dict[str, Any] | None]:
    """Trains the rest of an epoch and validates.

    Args:
        epoch: its number in its stage, from 0. `state.step` says how much of it is done already.
        save: writes a checkpoint of a state.
        stop: asked after every step and every batch of validation; if its answer is not 0, the epoch ends there.

    Returns:
        The state and the entry for metrics.jsonl; None instead of the entry if `stop` ended the epoch.
    """
    began, first = time.perf_counter(), int(state.step) - epoch * plan.steps
    pace = Pace(first, images=plan.images, batch_size=plan.batch_size)
    batches = source.train(epoch, first=first)
    for batch in batches:
        state = program.take(state, batch)
        pace.step += steps_in(batch)
        if report.awaits_first_step:
            jax.block_until_ready(state)
            report.first_step()
            pace.restart()
        if report.due():
            report.live(plan.epochs_before + epoch + 1, pace, trained_so_far(state, program.metrics), steps=plan.steps)
        if stop():  # called once for each step: a second call could answer otherwise
            return state, None
        if plan.saves_after(epoch, pace.step):
            save(state)
    trained, images_per_second = trained_so_far(state, program.metrics), pace.images_per_second()
    validated: Mapping[str, float | None] | None = dict.fromkeys(trained)  # every metric None: nothing is held out
    waited = batches.wait_seconds
    if plan.validation:
        held_out, evaluate = source.validation(), functools.partial(program.evaluate, state)
        validated = validate(held_out, evaluate, plan=plan, program=program, stop=stop)
        waited += held_out.wait_seconds
    if validated is None:
        return state, None
    return state, {
        **epoch_entry(plan.epochs_before + epoch + 1, step=plan.step_of(state), train=trained, validation=validated),
        "images_per_second": images_per_second,
        "data_wait_seconds": waited,
        "seconds": time.perf_counter() - began,
    }


def epoch_entry(epoch: int, *, step: int, **metrics: Mapping[str, float | None]) -> dict[str, Any]:
    """An entry of metrics.jsonl, without times; the name of each metric begins with its split."""
    named = {f"{split}/{name}": value for split, found in metrics.items() for name, value in found.items()}
    return {"event": "epoch", "epoch": epoch, "step": step, **named}


def validate(
    batches: Iterable[Batch],
    evaluate: Callable[[Batch], dict[str, jax.Array]],
    *,
    plan: Plan,
    program: Program,
    stop: Callable[[], int],
) -> dict[str, float] | None:
    """Loss and metrics on all validation records, each counted once; None if `stop` ended it."""
    parts = []
    for batch in batches:
        parts.append(evaluate(batch))
        if stop():
            return None
    total = {name: sum(float(part[name]) for part in parts) for name in parts[0]}
    if total["count"] != plan.validation:
        raise TrainingError(f"validated {total['count']:.0f} of {plan.validation} images: this is a bug in jaxcat")
    if not math.isfinite(total["loss"]):
        raise TrainingError(f"the validation loss is not finite; {SMALLER_STEPS}")
    return averages(total, program.metrics)


def trained_so_far(state: TrainState, metrics: tuple[str, ...]) -> dict[str, float]:
    """Loss and metrics of the epoch so far; waits for the device.

    Raises:
        TrainingError: the loss of a step was not finite. The checkpoints on disk are from before that step.
    """
    sums = jax.device_get(state.sums)
    if sums["bad_step"] >= 0:
        raise TrainingError(f"the loss was not finite at step {sums['bad_step'] + 1}; {SMALLER_STEPS}")
    return averages(sums, metrics)


def checked(state: TrainState) -> TrainState:
    """Checks a state before it is saved, and returns it.

    Raises:
        TrainingError: the loss of a step, or a value in the state, is not finite.
    """
    trained_so_far(state, ())
    arrays = (state.trained, state.stats, state.opt_state, state.averaged)
    for path, leaf in jax.tree_util.tree_flatten_with_path(arrays)[0]:
        if not np.isfinite(np.asarray(leaf)).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise TrainingError(f"{name} is not finite after step {int(state.step)}; {SMALLER_STEPS}")
    return state


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """N / (classes × images of the class), float32 (classes,): scikit-learn's "balanced"."""
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)
