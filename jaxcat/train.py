"""python -m jaxcat.train --config configs/NAME.py[:VARIANT] --workdir DIR [--config.a.b=value …]

Trains a classifier and leaves in DIR: checkpoints, metrics.jsonl, config.json, learning_curve.png. The same command on
the same DIR continues the run. Every setting, with its meaning and default, stands in jaxcat/config.py.
"""

from __future__ import annotations

import contextlib
import functools
import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from filelock import FileLock, Timeout
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat import cli
from jaxcat.bottleneck import key_of
from jaxcat.cached import Cached
from jaxcat.checkpoint_meta import best_epoch
from jaxcat.checkpoints import Checkpoints
from jaxcat.compilation import enable_compilation_cache, jit
from jaxcat.config import validate
from jaxcat.data import Data, Split, fingerprint, open_data
from jaxcat.errors import CheckpointError, ConfigError, TrainingError
from jaxcat.interruption import Interruption
from jaxcat.optim import make_optimizer
from jaxcat.report import Pace, Reporter, complete_reports, describe_run, next_command
from jaxcat.sharding import initialize_distributed, make_mesh, place_replicated, replicated, values_of_processes
from jaxcat.sources import Source, Streaming, check_agreement
from jaxcat.start import Start, find_origin, first_state, make_network, previous_run, start
from jaxcat.steps import Batch, InLine, TrainState, make_eval_step, make_train_step, repeated, steps_in, zero_sums

SMALLER_STEPS = (
    "the last good checkpoint is kept. Start a new --workdir with a smaller --config.optim.learning_rate, or "
    "--config.optim.clip_norm=1"
)


def train(config: ConfigDict, workdir: Path) -> int:
    """Train as `config` says, or continue what `workdir` holds.

    Returns:
        The exit status: 0, or 130 or 143 when SIGINT or SIGTERM ended it after a checkpoint.

    Raises:
        JaxcatError: the request, the data, the weights or the run itself cannot go on; the message says what to do.
    """
    validate(config)
    with held(workdir):
        meta = previous_run(config, workdir)
        if meta is not None and (reason := stop_reason(config, meta["history"])):
            with Checkpoints(workdir, keep=config.checkpoint.keep, history=meta["history"]):
                pass  # removes what a kill after the last write has left
            if jax.process_index() == 0:
                complete_reports(workdir, meta["history"])
                print(f"this run is finished: {reason}; {next_command(workdir)} measures it")
            return 0
        mesh = make_mesh()
        data = open_data(config)
        check_agreement(data.splits)
        origin = find_origin(config, workdir, meta=meta, classes=data.classes)
        network = make_network(config, origin, classes=data.classes)
        run = start(config, workdir, network=network, origin=origin, meta=meta, classes=data.classes, mesh=mesh)
        source = open_source(config, data, run=run, mesh=mesh)
        return train_epochs(config, workdir, run=run, source=source, mesh=mesh)


def open_source(config: ConfigDict, data: Data, *, run: Start, mesh: Mesh) -> Source:
    """Bottlenecks where `bottleneck.views` asks for them, else the pictures."""
    if not config.bottleneck.views:
        return Streaming(config, data, mesh=mesh)
    key = key_of(config, run.network, frozen_digests=run.meta["frozen_digests"])
    return Cached(config, data, network=run.network, frozen=run.frozen, key=key, mesh=mesh)


def train_epochs(config: ConfigDict, workdir: Path, *, run: Start, source: Source, mesh: Mesh) -> int:
    """The loop: epochs until a reason to stop, each of them train steps, one exact validation, one checkpoint."""
    labels, total, history = source.splits["train"].labels, len(source.splits["validation"]), list(run.history)
    steps_per_epoch, every = math.ceil(len(labels) / config.batch_size), config.checkpoint.every_steps
    check_records(run, workdir, splits=source.splits, batch_size=config.batch_size)
    length = {"steps": config.epochs * steps_per_epoch, "steps_per_epoch": steps_per_epoch}
    tx = make_optimizer(config.optim, run.network.labels, **length)
    state = first_state(run, workdir, tx=tx, mesh=mesh)
    take, evaluate = compiled(config, run, tx=tx, labels=labels, mesh=mesh)

    with (
        Checkpoints(workdir, keep=config.checkpoint.keep, history=history) as saved,
        Reporter(workdir, history, config=config, steps=steps_per_epoch, leading=jax.process_index() == 0) as report,
    ):
        describe_run(report.console, config, run, state, source=source.describe(), length=length, mesh=mesh)
        with Interruption(mesh) as interruption:
            if status := source.prepare(report.console, stop=interruption.stop):
                report.say("interrupted while bottlenecks were computed: the same command continues from there")
                return status
            report.say("compiling the first step …")
            began, compiling = time.perf_counter(), True
            while not (reason := stop_reason(config, history)):
                epoch, started = len(history), time.perf_counter()
                first = int(state.step) - epoch * steps_per_epoch  # above 0 when a run was cut within an epoch
                pace = Pace(first, pictures=len(labels), batch_size=config.batch_size)
                batches = source.train(epoch, first=first)
                for batch in batches:
                    state = take(state, batch)
                    pace.step += steps_in(batch)
                    if compiling:
                        jax.block_until_ready(state)
                        report.say(f"first step {time.perf_counter() - began:.1f} s from here, compilation included")
                        pace.restart()
                        compiling = False
                    if report.due():
                        report.live(epoch + 1, pace, **averages(state))
                    due = every and (epoch * steps_per_epoch + pace.step) % every == 0 and pace.step < steps_per_epoch
                    status = interruption.stop()  # once a step: a signal may come between two looks
                    if due or status:
                        averages(state)
                        saved.save(finite(state), {**run.meta, "history": history})
                    if status:
                        report.say(f"interrupted at step {int(state.step)}: the same command continues from there")
                        return status
                trained, images_per_second = averages(state), pace.images_per_second()
                held_out = source.validation()
                validated = validation(held_out, functools.partial(evaluate, state), of=total, stop=interruption.stop)
                if interruption.status:
                    saved.save(finite(state), {**run.meta, "history": history})
                    report.say(f"interrupted in validation: the same command continues from step {int(state.step)}")
                    return interruption.status
                record = {
                    **epoch_record(epoch + 1, step=int(state.step), train=trained, validation=validated),
                    "images_per_second": images_per_second,
                    "data_wait_seconds": batches.wait_seconds + held_out.wait_seconds,
                    "seconds": time.perf_counter() - started,
                }
                history.append(record)
                report.epoch(record)
                state = state._replace(sums=place_replicated(mesh, zero_sums()))
                saved.save(finite(state), {**run.meta, "history": history})
        report.finish(history, reason)
    return 0


def epoch_record(epoch: int, *, step: int, **metrics: dict[str, float]) -> dict[str, Any]:
    """Of metrics.jsonl, without times; each metric is named after its split."""
    named = {f"{split}/{name}": value for split, found in metrics.items() for name, value in found.items()}
    return {"event": "epoch", "epoch": epoch, "step": step, **named}


def check_records(run: Start, workdir: Path, *, splits: dict[str, Split], batch_size: int) -> None:
    """Note in the meta what an epoch is made of; a continued run of other records would lose its place, and might
    validate what it was trained on.

    Raises:
        ConfigError: the run was begun with other records or another batch size.
    """
    now = {"pictures": len(splits["train"]), "batch_size": batch_size, "records": fingerprint(splits)}
    before = run.meta.setdefault("length", now)
    before = {"records": now["records"], **before}  # runs of earlier versions do not say
    if before != now:
        renamed = before["records"] != now["records"]
        raise ConfigError(
            f"--workdir {workdir}: this run was trained on {before['pictures']} pictures in batches of "
            f"{before['batch_size']}, now there are {now['pictures']} in batches of {batch_size}"
            f"{', and names or labels have changed' if renamed else ''}: its steps no longer mean the same. Restore "
            "the pictures, or go on in a new --workdir with --config.init_from"
        )


def compiled(
    config: ConfigDict, run: Start, *, tx: optax.GradientTransformation, labels: np.ndarray, mesh: Mesh
) -> tuple[Callable[[TrainState, Batch], TrainState], Callable[[TrainState, Batch], dict[str, jax.Array]]]:
    """The two functions that run on the devices, for one run: `take(state, batch) -> state` and
    `evaluate(state, batch) -> masked sums`. Each is compiled at its first call."""
    balanced = class_weights(labels, run.network.classes) if config.optim.class_weight == "balanced" else None
    step = make_train_step(run.network, tx, seed=config.seed, class_weights=balanced)
    one, several = (
        jit(function, donate_argnums=0, out_shardings=replicated(mesh)) for function in (step, repeated(step))
    )
    evaluated = jit(make_eval_step(run.network), out_shardings=replicated(mesh))
    line = InLine()

    def take(state: TrainState, batch: Batch) -> TrainState:
        state = (several if steps_in(batch) > 1 else one)(state, run.frozen, batch)
        line.add(jnp.copy(state.step))  # the next step takes the state's own memory
        return state

    def evaluate(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        sums = evaluated(state.trained, state.stats, run.frozen, batch)[1]
        line.add(sums["count"])
        return sums

    return take, evaluate


def validation(
    batches: Iterable[Batch], evaluate: Callable[[Batch], dict[str, jax.Array]], *, of: int, stop: Callable[[], int]
) -> dict[str, float]:
    """Loss and accuracy on all `of` records, each counted once; nothing where `stop` answers a signal's status."""
    parts = []
    for batch in batches:
        parts.append(evaluate(batch))
        if stop():
            return {}
    total = {name: sum(float(part[name]) for part in parts) for name in ("loss", "correct", "count")}
    if total["count"] != of:
        raise TrainingError(f"validated {total['count']:.0f} of {of} pictures: this is a defect of jaxcat")
    if not math.isfinite(total["loss"]):
        raise TrainingError(f"the validation loss is not finite; {SMALLER_STEPS}")
    return {"loss": total["loss"] / of, "accuracy": total["correct"] / of}


def averages(state: TrainState) -> dict[str, float]:
    """Loss and accuracy of the epoch so far; waits for the device.

    Raises:
        TrainingError: the loss of a step was not finite. The checkpoints on disk are from before it.
    """
    sums = jax.device_get(state.sums)
    if sums["bad_step"] >= 0:
        raise TrainingError(f"the loss was not finite at step {sums['bad_step'] + 1}; {SMALLER_STEPS}")
    count = max(1, int(sums["count"]))
    return {"loss": float(sums["loss"]) / count, "accuracy": int(sums["correct"]) / count}


def finite(state: TrainState) -> TrainState:
    """The same state, on its way to the disk.

    Raises:
        TrainingError: the last step has left a value in it that is not finite, though its loss still was.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path((state.trained, state.stats, state.opt_state))[0]:
        if not np.isfinite(np.asarray(leaf)).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise TrainingError(f"{name} is not finite after step {int(state.step)}; {SMALLER_STEPS}")
    return state


def stop_reason(config: ConfigDict, history: list[dict]) -> str:
    """Why training should end after these epochs, or "" to go on; a pure function, so a resumed run agrees."""
    if not history:
        return ""
    last, stop = history[-1], config.stop
    if stop.accuracy and last[f"{stop.on}/accuracy"] >= stop.accuracy:
        return f"{stop.on} accuracy {last[f'{stop.on}/accuracy']:.4f} reached {stop.accuracy}"
    best = best_epoch(history)
    if stop.patience and best is not None and last["epoch"] - best["epoch"] >= stop.patience:
        return f"no better validation accuracy in {stop.patience} epochs"
    return f"{config.epochs} epochs" if len(history) >= config.epochs else ""


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """N / (classes × pictures of the class), float32 (classes,): scikit-learn's "balanced"."""
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Hold the workdir against a second run; made if it is not there. Process 0 holds it for all of its run."""
    lock, refusal = FileLock(workdir / ".lock"), ""
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            refusal = "another run holds it; wait for it, or use another --workdir"
        except OSError as error:
            refusal = f"cannot be written: {error.strerror}"
    try:
        if any(values_of_processes(bool(refusal))):
            raise CheckpointError(f"--workdir {workdir}: {refusal or 'process 0 cannot use it'}")
        yield
    finally:
        lock.release()


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.train",
        description="Train an image classifier by transfer learning on Inception-v3.",
        epilog="Settings are written --config.name=value; jaxcat/config.py lists them all with their meaning.",
    )
    parser.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="a file of configs/, or your own")
    parser.add_argument("--workdir", required=True, type=Path, help="where the run keeps everything; made if missing")
    cli.add_process_flags(parser)
    arguments, overrides = parser.parse_known_args(argv)
    config = cli.read_config(arguments.config, overrides)
    validate(config)
    initialize_distributed(
        arguments.coordinator, num_processes=arguments.num_processes, process_id=arguments.process_id
    )
    enable_compilation_cache()
    status = train(config, arguments.workdir.absolute())
    if status and jax.process_index() == 0:
        print(f"to continue: python -m jaxcat.train {shlex.join(argv)}")
    return status


if __name__ == "__main__":
    cli.run(main)
