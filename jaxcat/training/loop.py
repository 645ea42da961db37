"""A run from the first look at the workdir to the last checkpoint, in the order in which things happen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from jaxcat.bottlenecks.source import BottleneckSource
from jaxcat.data.checks import refuse_no_images
from jaxcat.data.images.decoding import decoding_of
from jaxcat.data.images.grey import find_bits
from jaxcat.data.records import Data
from jaxcat.data.sources import open_data
from jaxcat.data.streaming import Source, Streaming, check_agreement
from jaxcat.models.completion import complete, widest
from jaxcat.runs.checkpoints import Checkpoints
from jaxcat.runs.meta import Meta, read_meta
from jaxcat.runs.records import rules_of
from jaxcat.runs.workdir import steps
from jaxcat.system.console import Console, said_if_long
from jaxcat.system.devices import make_mesh, place_replicated
from jaxcat.system.interruption import Interruption
from jaxcat.system.processes import barrier, values_of_processes
from jaxcat.training import exact
from jaxcat.training.accumulation import check_parts
from jaxcat.training.augmentation import settle_augmentation
from jaxcat.training.describe import describe_run, length_of, next_command
from jaxcat.training.ending import finished, following, next_stage, of_stage, stop_reason
from jaxcat.training.engine import check_engine, settle_engine
from jaxcat.training.epoch import Plan, Program, checked, compile_steps, optimizer_of, run_epoch, step_options
from jaxcat.training.learning_rate_search import find_rate
from jaxcat.training.optim import is_exact
from jaxcat.training.origin import find_origin, will_be_downloaded
from jaxcat.training.place import check_place, held
from jaxcat.training.records import check_records, records_of, remember
from jaxcat.training.reporting import Reporter, complete_reports, estimates
from jaxcat.training.stages import config_of, entries_of, title, unused
from jaxcat.training.start import Start, check_pixels, first_state, keep_found, previous_run, start
from jaxcat.training.steps import TrainState, items_of, new_sums


def train(config: ConfigDict, workdir: Path) -> int:
    """Trains a new run as the checked `config` says, or continues the run in `workdir`.

    Returns:
        The exit status: 0; or, after a checkpoint, 130 if SIGINT and 143 if SIGTERM interrupted the run.

    Raises:
        JaxcatError: the request, data, weights or workdir cannot be used, or training fails; the error says what to do.
    """
    config = config.copy_and_resolve_references()  # the caller's config stays as it is
    complete(config)
    mesh, console = make_mesh(), Console(quiet=jax.process_index() != 0)
    check_place(config, workdir)
    with held(workdir):
        with said_if_long("reading checkpoints", console=console):
            meta = previous_run(config, workdir)
        if meta is not None and (reason := finished(config, meta)):
            tidy_finished(config, workdir, meta=meta)
            if jax.process_index() == 0:
                for line in estimates(meta.history[-1]) if is_exact(config) else ():
                    print(line)
                print(f"this run is finished: {reason}; {next_command(workdir, meta.history)}")
            return 0
        check_engine(config, begun=meta is not None)
        if meta is not None:
            meta = check_pixels(config, meta, workdir)
        with said_if_long("looking through the data", console=console):
            data = open_data(config, rules=rules_of(meta))
            check_agreement(data.splits)
            data = settle_grey(config, data)
            settle_engine(config, data)
            settle_augmentation(config)
            if meta is None and not config.data.skip_bad and will_be_downloaded(config):
                refuse_no_images({name: data.splits[name] for name in ("train", "validation")})
        check_parts(config, images=len(data.splits["train"]), mesh=mesh)
        if config.train.stages:
            return train_stages(config, workdir, meta=meta, data=data, mesh=mesh)
        run, source = start_of(config, workdir, meta=meta, data=data, mesh=mesh)
        with Interruption(mesh) as interruption:
            return go_on(config, workdir, run=run, data=data, source=source, mesh=mesh, interruption=interruption)


def train_stages(config: ConfigDict, workdir: Path, *, meta: Meta | None, data: Data, mesh: Mesh) -> int:
    """Trains the stages of a run that are left, one after the other; returns the exit status.

    Each begins with what is on disk, so an interruption between two makes no difference. Signals are noted from the
    moment that the first stage has begun; before it, weights may be downloaded, and a signal ends the process.
    """
    if meta is None and (ignored := unused(config)) and jax.process_index() == 0:
        print(f"each stage has its own epochs and learning rate, in place of the recipe's {', '.join(ignored)}")

    def begin_stage(number: int, meta: Meta | None) -> tuple[ConfigDict, Start, Source]:
        own = config_of(config, number)
        return own, *start_of(own, workdir, meta=meta, data=data, mesh=mesh, stage=number, request=config)

    own, run, source = begin_stage(next_stage(config, meta), meta)
    with Interruption(mesh) as interruption:
        while True:
            status = go_on(own, workdir, run=run, data=data, source=source, mesh=mesh, interruption=interruption)
            if status:
                return status
            barrier()  # every process has seen the last checkpoint of the stage complete
            meta = read_meta(workdir, steps(workdir)[-1])
            keep_found(config, meta.asked)
            if not (number := next_stage(config, meta)):
                return 0
            if status := interruption.stop():  # a signal came after the last look of the stage
                if jax.process_index() == 0:
                    print(f"interrupted: the same command continues with stage {title(config, number)}")
                return status
            own, run, source = begin_stage(number, meta)


def start_of(
    config: ConfigDict,
    workdir: Path,
    *,
    meta: Meta | None,
    data: Data,
    mesh: Mesh,
    stage: int = 0,
    request: ConfigDict | None = None,
) -> tuple[Start, Source]:
    """The start of a run without stages, or of one stage of a run, and its source of batches, not yet prepared.

    Args:
        config: of the run, or of the stage.
        meta: of the newest checkpoint in the workdir.
        stage, request: the number of the stage, and the config of the run that has it.
    """
    with said_if_long("reading weights", console=Console(quiet=jax.process_index() != 0)):
        wide = widest(config)
        origin = find_origin(wide, workdir, meta=meta, classes=data.classes)
        run = start(
            wide,
            workdir,
            origin=origin,
            meta=meta,
            classes=data.classes,
            mesh=mesh,
            stage=stage,
            request=request,
        )
    return run, open_source(wide, data, run=run, mesh=mesh)


def go_on(
    config: ConfigDict, workdir: Path, *, run: Start, data: Data, source: Source, mesh: Mesh, interruption: Interruption
) -> int:
    """Solves the head or trains the epochs of what `start_of` has given; returns the exit status.

    It is 0 if a signal came when nothing of the stage was left to do.
    """
    if isinstance(source, BottleneckSource) and is_exact(config):
        return exact.solve(config, workdir, run=run, data=data, source=source, mesh=mesh, interruption=interruption)
    return train_epochs(config, workdir, run=run, data=data, source=source, mesh=mesh, interruption=interruption)


def settle_grey(config: ConfigDict, data: Data) -> Data:
    """Replaces `data.grey_bits=0` by the scale that train's 16-bit images need, in all processes, and says so."""
    if config.data.grey_bits:
        return data
    found = max(values_of_processes(find_bits(data.splits["train"])))
    config.data.grey_bits = found or 16
    if found and jax.process_index() == 0:
        print(
            f"16-bit images: their values use {found} bits, so a level is min(value >> {found - 8}, 255), in this run"
            f" and wherever it is used (--config.data.grey_bits={found})"
        )
    return data.decoded(decoding_of(config))


def open_source(config: ConfigDict, data: Data, *, run: Start, mesh: Mesh) -> Source:
    """The source of batches: bottlenecks if `bottleneck.views` asks for them, else images."""
    if not config.bottleneck.views:
        return Streaming(config, data, mesh=mesh)
    return bottlenecks_of(config, data, run=run, mesh=mesh)


def bottlenecks_of(
    config: ConfigDict, data: Data, *, run: Start, mesh: Mesh, splits: Sequence[str] = ("train", "validation")
) -> BottleneckSource:
    """The bottlenecks of a run's records, not yet prepared."""
    return BottleneckSource(
        config,
        data,
        network=run.network,
        frozen=run.frozen,
        frozen_digests=run.meta.frozen_digests,
        mesh=mesh,
        splits=splits,
    )


def train_epochs(
    config: ConfigDict, workdir: Path, *, run: Start, data: Data, source: Source, mesh: Mesh, interruption: Interruption
) -> int:
    """Trains epochs until there is a reason to stop, each with an exact validation and a checkpoint."""
    history, stage = list(run.meta.history), run.meta.stage
    earlier = history[: len(history) - len(entries_of(history, stage))]
    if not config.data.skip_bad:  # else the readable images are not known yet
        check_records(run.meta, workdir, records=records_of(source.splits, config))
    with (
        Checkpoints(workdir, keep=config.checkpoint.keep, history=history) as checkpoints,
        Reporter(workdir, history, config=run.meta.asked, leading=jax.process_index() == 0) as report,
    ):
        validated = bool(len(source.splits["validation"]))
        describe_run(report.console, config, run, source=source.describe(), mesh=mesh, validated=validated)
        if status := source.prepare(report.console, stop=interruption.stop):
            report.say("interrupted while images were prepared: the same command continues from there")
            return status
        records = check_records(run.meta, workdir, records=records_of(source.splits, config))
        records = remember(records, workdir, source=source, data=data, before=run.meta, console=report.console)
        meta = dataclasses.replace(run.meta, records=records)
        if config.optim.find_learning_rate and not run.resumed:
            found = settle_learning_rate(config, run, source=source, mesh=mesh, report=report, stop=interruption.stop)
            if found is None:
                report.say("interrupted in the search for a learning rate: the same command begins it again")
                return interruption.status
            meta = dataclasses.replace(meta, config=found)

        plan = Plan(config, images=records.images, validation=len(source.splits["validation"]), history=earlier)
        state, program = begin(config, run, plan=plan, source=source, checkpoints=checkpoints, mesh=mesh)
        report.say(f"ready    {source.describe()}")
        report.say(length_of(config, plan.steps, step=int(state.step)))

        def save(state: TrainState) -> None:
            items = items_of(checked(state))
            checkpoints.save(items, dataclasses.replace(meta, history=tuple(history), step=plan.step_of(state)))

        report.compiling()
        while not (reason := stop_reason(config, entries_of(history, stage))):
            state, entry = run_epoch(
                state,
                epoch=len(history) - len(earlier),
                plan=plan,
                program=program,
                source=source,
                report=report,
                save=save,
                stop=interruption.stop,
            )
            if entry is not None:
                entry |= {"stage": stage} if stage else {}
                history.append(entry)
                report.epoch(entry)
                state = state._replace(sums=place_replicated(mesh, new_sums(meta.metrics)))
            save(state)
            if entry is None:
                report.say(f"interrupted at step {plan.step_of(state)}: the same command continues from there")
                return interruption.status
        meta = dataclasses.replace(meta, history=tuple(history))
        report.finish(history, of_stage(reason, meta), then=following(meta))
    return 0


def settle_learning_rate(
    config: ConfigDict, run: Start, *, source: Source, mesh: Mesh, report: Reporter, stop: Callable[[], int]
) -> ConfigDict | None:
    """Searches for a learning rate and sets it in `config`; returns the run's config with it, None if interrupted."""
    options = step_options(config, run, labels=source.splits["train"].labels)
    found = find_rate(config, run, source=source, options=options, mesh=mesh, report=report, stop=stop)
    if found is None:
        return None
    config.optim.learning_rate = found
    settled = run.meta.config.copy_and_resolve_references()
    settled.optim.learning_rate = found
    report.settle(settled)
    return settled


def begin(
    config: ConfigDict, run: Start, *, plan: Plan, source: Source, checkpoints: Checkpoints, mesh: Mesh
) -> tuple[TrainState, Program]:
    """The state with which training begins or continues, and the functions that take its steps."""
    steps = config.epochs * plan.steps
    tx = optimizer_of(run.network, FrozenConfigDict(config.optim), steps=steps, steps_per_epoch=plan.steps)
    state = first_state(run, checkpoints, tx=tx, mesh=mesh)
    return state, compile_steps(config, run, tx=tx, labels=source.splits["train"].labels, mesh=mesh)


def tidy_finished(config: ConfigDict, workdir: Path, *, meta: Meta) -> None:
    """Finishes a run that was killed between its last checkpoint and its end; usually there is nothing to do."""
    with Checkpoints(workdir, keep=config.checkpoint.keep, history=list(meta.history)):
        pass  # leaving removes old checkpoints
    if jax.process_index() == 0:
        complete_reports(workdir, meta)
