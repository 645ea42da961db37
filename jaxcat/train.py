"""python -m jaxcat.train --config configs/NAME.py[:VARIANT] --workdir DIR [--config.a.b=value …]

Trains a classifier and leaves in DIR: checkpoints, metrics.jsonl, config.json, learning_curve.png. The same command on
the same DIR continues the run. Every setting, with its meaning and default, stands in jaxcat/config.py.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from filelock import FileLock, Timeout
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat import cli
from jaxcat.augment import store_size
from jaxcat.checkpoints import Checkpoints, best_epoch
from jaxcat.compilation import enable_compilation_cache, jit
from jaxcat.config import validate
from jaxcat.data import Data, Store, open_data, open_stores, order
from jaxcat.errors import CheckpointError, TrainingError
from jaxcat.interruption import Interruption
from jaxcat.pipeline import Batches, batches
from jaxcat.report import Reporter, complete_reports, describe_run
from jaxcat.sharding import initialize_distributed, make_mesh, place_replicated, replicated, values_of_processes
from jaxcat.start import Start, find_origin, make_network, previous_run, start
from jaxcat.steps import TrainState, make_eval_step, make_train_step, zero_sums


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
            if jax.process_index() == 0:
                complete_reports(workdir, meta["history"])
                print(f"this run is finished: {reason}; python -m jaxcat.evaluate --workdir {workdir} measures it")
            return 0
        mesh = make_mesh()
        data = open_data(config)
        origin = find_origin(config, workdir, meta=meta, classes=data.classes)
        network = make_network(config, origin, classes=data.classes)
        stores = open_pictures(config, data)
        steps_per_epoch = math.ceil(len(stores["train"]) / config.batch_size)
        run = start(
            config,
            workdir,
            network=network,
            origin=origin,
            meta=meta,
            classes=data.classes,
            steps_per_epoch=steps_per_epoch,
            mesh=mesh,
        )
        return train_epochs(config, workdir, run=run, stores=stores, steps_per_epoch=steps_per_epoch, mesh=mesh)


def train_epochs(
    config: ConfigDict, workdir: Path, *, run: Start, stores: dict[str, Store], steps_per_epoch: int, mesh: Mesh
) -> int:
    """The loop: epochs until a reason to stop, each of them train steps, one exact validation, one checkpoint."""
    state, history, labels = run.state, list(run.history), stores["train"].split.labels
    balanced = class_weights(labels, run.network.classes) if config.optim.class_weight == "balanced" else None
    train_step = make_train_step(run.network, run.tx, seed=config.seed, class_weights=balanced)
    step = jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))
    eval_step = jit(make_eval_step(run.network), out_shardings=replicated(mesh))
    every, began = config.checkpoint.every_steps, time.perf_counter()

    with (
        Checkpoints(workdir, keep=config.checkpoint.keep, history=history) as saved,
        Reporter(workdir, history, config=config, leading=jax.process_index() == 0) as report,
        Interruption(mesh) as interruption,
    ):
        describe_run(report.console, config, run, stores=stores, steps_per_epoch=steps_per_epoch, mesh=mesh)
        while not (reason := stop_reason(config, history)):
            epoch, started = len(history), time.perf_counter()
            first = int(state.step) - epoch * steps_per_epoch  # above 0 when a run was cut within an epoch
            source = training_batches(config, stores["train"], epoch=epoch, first=first, mesh=mesh)
            for number, batch in enumerate(source, first + 1):
                state = step(state, run.frozen, batch)
                if not history and number == first + 1:
                    jax.block_until_ready(state)
                    report.say(f"first step {time.perf_counter() - began:.1f} s after the start, compilation included")
                    began = started = time.perf_counter()
                if report.due():
                    speed = (number - first) * config.batch_size / (time.perf_counter() - started)
                    report.live(epoch + 1, number, steps=steps_per_epoch, images_per_second=speed, **averages(state))
                due = every and (epoch * steps_per_epoch + number) % every == 0 and number < steps_per_epoch
                status = interruption.stop()  # once a step: a signal may come between two looks
                if due or status:
                    averages(state)
                    saved.save(state, {**run.meta, "history": history})
                if status:
                    report.say(f"interrupted at step {int(state.step)}: the same command continues from there")
                    return status
            trained = averages(state)
            train_seconds = time.perf_counter() - started
            validated = validation(
                config,
                stores["validation"],
                run=run,
                state=state,
                eval_step=eval_step,
                mesh=mesh,
                interruption=interruption,
            )
            if interruption.status:
                saved.save(state, {**run.meta, "history": history})
                report.say(f"interrupted in validation: the same command continues from step {int(state.step)}")
                return interruption.status
            record = {
                "event": "epoch",
                "epoch": epoch + 1,
                "step": int(state.step),
                **{f"train/{name}": value for name, value in trained.items()},
                **{f"validation/{name}": value for name, value in validated.items()},
                "images_per_second": max(0, len(labels) - first * config.batch_size) / train_seconds,
                "data_wait_seconds": source.wait_seconds,
                "seconds": time.perf_counter() - started,
            }
            history.append(record)
            report.epoch(record)
            state = state._replace(sums=place_replicated(mesh, zero_sums()))
            saved.save(state, {**run.meta, "history": history})
        report.finish(history)
        best = best_epoch(history)
        if best is not None:
            report.say(
                f"done: {reason}; best validation accuracy {best['validation/accuracy']:.4f} in epoch {best['epoch']}"
            )
    return 0


def training_batches(config: ConfigDict, store: Store, *, epoch: int, first: int, mesh: Mesh) -> Batches:
    """What is left of an epoch after its `first` steps, in the epoch's own order, seen through the epoch's own view."""
    indices = order(len(store), seed=config.seed, epoch=epoch)[first * config.batch_size :]
    return batches(
        store,
        store.split.labels,
        indices,
        batch_size=config.batch_size,
        size=config.data.image_size,
        mesh=mesh,
        augment=config.data.augment,
        seed=config.seed,
        view=epoch,
    )


def validation(
    config: ConfigDict,
    store: Store,
    *,
    run: Start,
    state: TrainState,
    eval_step,
    mesh: Mesh,
    interruption: Interruption,
) -> dict[str, float]:
    """Loss and accuracy on every validation picture, each counted once; nothing where a signal cut it short."""
    everything = np.arange(len(store))
    size = config.data.image_size
    source = batches(store, store.split.labels, everything, batch_size=config.batch_size, size=size, mesh=mesh)
    parts = []
    for batch in source:
        parts.append(eval_step(state.trained, state.stats, run.frozen, batch)[1])
        if interruption.stop():
            return {}
    total = {name: sum(float(part[name]) for part in parts) for name in ("loss", "correct", "count")}
    if total["count"] != len(store):
        raise TrainingError(f"validated {total['count']:.0f} of {len(store)} pictures: this is a defect of jaxcat")
    return {"loss": total["loss"] / total["count"], "accuracy": total["correct"] / total["count"]}


def averages(state: TrainState) -> dict[str, float]:
    """Loss and accuracy of the epoch so far; waits for the device.

    Raises:
        TrainingError: the loss of a step was not finite. The checkpoints on disk are from before it.
    """
    sums = jax.device_get(state.sums)
    if sums["bad_step"] >= 0:
        raise TrainingError(
            f"the loss was not finite at step {sums['bad_step'] + 1}; the last good checkpoint is kept. Start a new "
            "--workdir with a smaller --config.optim.learning_rate, or --config.optim.clip_norm=1"
        )
    count = max(1, int(sums["count"]))
    return {"loss": float(sums["loss"]) / count, "accuracy": int(sums["correct"]) / count}


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


def open_pictures(config: ConfigDict, data: Data) -> dict[str, Store]:
    """Train and validation, every picture checked and in memory as far as `data.cache_gb` goes."""
    size = config.data.image_size
    return open_stores(
        {name: data.splits[name] for name in ("train", "validation")},
        sizes={"train": store_size(config.data.augment, size), "validation": size},
        mode=config.data.resize,
        cache_gb=config.data.cache_gb,
        skip_bad=config.data.skip_bad,
    )


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
