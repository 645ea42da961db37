"""A run from the first look at the workdir to the last checkpoint, in the order in which things happen."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
from filelock import FileLock, Timeout
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat.bottlenecks.key import key_of
from jaxcat.bottlenecks.source import BottleneckSource
from jaxcat.data.records import Data, Split, fingerprint
from jaxcat.data.sources import open_data
from jaxcat.data.streaming import Source, Streaming, check_agreement
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.models.backbone import complete_model
from jaxcat.runs.checkpoints import Checkpoints
from jaxcat.runs.meta import Meta, Records, best_epoch
from jaxcat.system.devices import make_mesh, place_replicated
from jaxcat.system.interruption import Interruption
from jaxcat.system.processes import values_of_processes
from jaxcat.training.describe import describe_run, length_of, next_command
from jaxcat.training.epoch import Plan, checked, compile_steps, run_epoch
from jaxcat.training.optim import make_optimizer
from jaxcat.training.origin import find_origin
from jaxcat.training.reporting import Reporter, complete_reports
from jaxcat.training.start import Start, check_pixels, first_state, previous_run, start
from jaxcat.training.steps import TrainState, items_of, new_sums


def train(config: ConfigDict, workdir: Path) -> int:
    """Trains a new run as the checked `config` says, or continues the run in `workdir`.

    Returns:
        The exit status: 0; or, after a checkpoint, 130 if SIGINT and 143 if SIGTERM interrupted the run.

    Raises:
        JaxcatError: the request, data, weights or workdir cannot be used, or training fails; the error says what to do.
    """
    config = config.copy_and_resolve_references()  # the caller's config stays as it is
    complete_model(config.model)
    with held(workdir):
        meta = previous_run(config, workdir)
        if meta is not None and (reason := stop_reason(config, meta.history)):
            tidy_finished(config, workdir, meta=meta)
            if jax.process_index() == 0:
                print(f"this run is finished: {reason}; {next_command(workdir, meta.history)}")
            return 0
        if meta is not None:
            meta = check_pixels(config, meta, workdir)
        mesh = make_mesh()
        data = open_data(config)
        check_agreement(data.splits)
        origin = find_origin(config, workdir, meta=meta, classes=data.classes)
        run = start(config, workdir, origin=origin, meta=meta, classes=data.classes, mesh=mesh)
        source = open_source(config, data, run=run, mesh=mesh)
        return train_epochs(config, workdir, run=run, source=source, mesh=mesh)


def open_source(config: ConfigDict, data: Data, *, run: Start, mesh: Mesh) -> Source:
    """The source of batches: bottlenecks if `bottleneck.views` asks for them, else images."""
    if not config.bottleneck.views:
        return Streaming(config, data, mesh=mesh)
    key = key_of(config, run.network, frozen_digests=run.meta.frozen_digests)
    return BottleneckSource(config, data, network=run.network, frozen=run.frozen, key=key, mesh=mesh)


def train_epochs(config: ConfigDict, workdir: Path, *, run: Start, source: Source, mesh: Mesh) -> int:
    """Trains epochs until there is a reason to stop, each with an exact validation and a checkpoint."""
    history = list(run.meta.history)
    if not config.data.skip_bad:  # else the readable images are not known yet
        check_records(run.meta, workdir, records=records_of(source.splits, config))
    with (
        Checkpoints(workdir, keep=config.checkpoint.keep, history=history) as checkpoints,
        Reporter(workdir, history, config=config, leading=jax.process_index() == 0) as report,
        Interruption(mesh) as interruption,
    ):
        validated = bool(len(source.splits["validation"]))
        describe_run(report.console, config, run, source=source.describe(), mesh=mesh, validated=validated)
        if status := source.prepare(report.console, stop=interruption.stop):
            report.say("interrupted while images were prepared: the same command continues from there")
            return status
        records = records_of(source.splits, config)
        meta = dataclasses.replace(run.meta, records=check_records(run.meta, workdir, records=records))

        plan = Plan(config, images=records.images, validation=len(source.splits["validation"]))
        tx = make_optimizer(
            config.optim, run.network.labels, steps=config.epochs * plan.steps, steps_per_epoch=plan.steps
        )
        state = first_state(run, workdir, tx=tx, mesh=mesh)
        program = compile_steps(config, run, tx=tx, labels=source.splits["train"].labels, mesh=mesh)
        report.say(f"ready    {source.describe()}")
        report.say(length_of(config, plan.steps, step=int(state.step)))

        def save(state: TrainState) -> None:
            items = items_of(checked(state))
            checkpoints.save(items, dataclasses.replace(meta, history=tuple(history), step=int(state.step)))

        report.compiling()
        while not (reason := stop_reason(config, history)):
            state, record = run_epoch(
                state,
                epoch=len(history),
                plan=plan,
                program=program,
                source=source,
                report=report,
                save=save,
                stop=interruption.stop,
            )
            if record is not None:
                history.append(record)
                report.epoch(record)
                state = state._replace(sums=place_replicated(mesh, new_sums(meta.metrics)))
            save(state)
            if record is None:
                report.say(f"interrupted at step {int(state.step)}: the same command continues from there")
                return interruption.status
        report.finish(history, reason)
    return 0


def records_of(splits: Mapping[str, Split], config: ConfigDict) -> Records:
    """The `Records` that describe these splits."""
    return Records(len(splits["train"]), config.batch_size, fingerprint(splits))


def check_records(meta: Meta, workdir: Path, *, records: Records) -> Records:
    """Refuses to continue a run on other records: it would lose its place, or validate on images it was trained on.

    Returns:
        `records`.

    Raises:
        ConfigError: the run was begun with other records or another batch size.
    """
    before = meta.records
    if before is None or dataclasses.replace(before, fingerprint=before.fingerprint or records.fingerprint) == records:
        return records
    renamed = before.fingerprint not in (None, records.fingerprint)
    raise ConfigError(
        f"--workdir {workdir}: this run was trained on {before.images} images in batches of {before.batch_size}, now "
        f"there are {records.images} in batches of {records.batch_size}"
        f"{', and names or labels have changed' if renamed else ''}: its steps no longer count the same images. "
        "Restore the images, or start from this run in a new --workdir with --config.init_from"
    )


def tidy_finished(config: ConfigDict, workdir: Path, *, meta: Meta) -> None:
    """Finishes a run that was killed between its last checkpoint and its end; usually there is nothing to do."""
    with Checkpoints(workdir, keep=config.checkpoint.keep, history=list(meta.history)):
        pass  # leaving removes old checkpoints
    if jax.process_index() == 0:
        complete_reports(workdir, list(meta.history))


def stop_reason(config: ConfigDict, history: Sequence[dict]) -> str:
    """Why training should end after these epochs, or "" to go on; a continued run gets the same answer."""
    if not history:
        return ""
    last, stop = history[-1], config.stop
    if stop.accuracy and last[f"{stop.on}/accuracy"] >= stop.accuracy:
        return f"{stop.on} accuracy {last[f'{stop.on}/accuracy']:.4f} reached {stop.accuracy}"
    best = best_epoch(history)
    if stop.patience and best is not None and last["epoch"] - best["epoch"] >= stop.patience:
        return f"no better validation accuracy in {stop.patience} epochs"
    return f"{config.epochs} epochs" if len(history) >= config.epochs else ""


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Locks the workdir against a second run, and makes it if missing. Process 0 holds the lock for the whole run."""
    lock, refusal = FileLock(workdir / ".lock"), ""
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            refusal = "another run holds it; wait until that ends, or use another --workdir"
        except OSError as error:
            refusal = f"cannot be written: {error.strerror}"
    try:
        if any(values_of_processes(bool(refusal))):
            raise CheckpointError(f"--workdir {workdir}: {refusal or 'process 0 cannot use it'}")
        yield
    finally:
        lock.release()
