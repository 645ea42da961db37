"""A run with an exact head: bottlenecks, a choice of blocks and penalty by leave-one-out on train, one checkpoint."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.table import Table

from jaxcat.bottlenecks.source import BottleneckSource
from jaxcat.data.pixel_groups import groups_of
from jaxcat.data.records import Data, Split
from jaxcat.models.backbone import BACKBONES, pooled_blocks
from jaxcat.models.completion import candidates, chooses_blocks, set_blocks
from jaxcat.models.network import Tree
from jaxcat.objectives.exact.parts import Part, Processes
from jaxcat.objectives.exact.solve import Solution, solve_head
from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.objectives.metrics import predictions
from jaxcat.objectives.sums import averages, masked_sums
from jaxcat.runs.checkpoints import Checkpoints
from jaxcat.runs.meta import Meta
from jaxcat.system.console import Console, said_steps
from jaxcat.system.devices import place_replicated
from jaxcat.system.interruption import Interruption
from jaxcat.system.processes import sum_over_processes
from jaxcat.training.describe import describe_run
from jaxcat.training.ending import following, solved
from jaxcat.training.epoch import class_weights, epoch_entry
from jaxcat.training.records import check_records, records_of, remember
from jaxcat.training.reporting import Reporter
from jaxcat.training.requests import unused
from jaxcat.training.start import Start
from jaxcat.training.steps import TrainState, items_of, new_sums
from jaxcat.training.writers import CANDIDATES
from jaxcat.wording import first_to_last

ROWS_TOGETHER = 1024  # records whose logits are computed at once
INTERRUPTED = "interrupted before the head was solved: bottlenecks are kept, and the same command continues with them"

_sums_of = jax.jit(masked_sums, static_argnums=2)  # one program, not one for each operation


class _Interrupted(Exception):
    """A signal came while the head was being solved."""


def solve(
    config: ConfigDict,
    workdir: Path,
    *,
    run: Start,
    data: Data,
    source: BottleneckSource,
    mesh: Mesh,
    interruption: Interruption,
) -> int:
    """Solves the head of a new run and saves it as the run's only step.

    Args:
        config: as asked for, completed; the blocks that the head sees may still be `auto`.
        run: a start whose network has all blocks among which `config` lets jaxcat choose.
        source: of that network, not prepared.
        interruption: entered by the caller, who asks it again if another stage follows.

    Returns:
        The exit status: 0, or 130 or 143 if a signal came before the head was solved; bottlenecks are kept.
    """
    leading = jax.process_index() == 0
    with (
        Checkpoints(workdir) as checkpoints,
        Reporter(workdir, [], config=run.meta.request or config, leading=leading) as report,
    ):
        validated, console = bool(len(source.splits["validation"])), report.console
        describe_run(console, config, run, source=source.describe(), mesh=mesh, validated=validated)
        if ignored := [] if run.meta.stage else unused(config):
            report.say(f"not used by an exact head: {', '.join(ignored)}")
        if status := source.prepare(console, stop=interruption.stop):
            report.say(INTERRUPTED)
            return status
        records = check_records(run.meta, workdir, records=records_of(source.splits, config))
        records = remember(records, workdir, source=source, data=data, before=run.meta, console=console)
        began = time.perf_counter()
        groups = {name: groups_of(split, source.digests[name], console=console) for name, split in _filled(source)}
        try:
            solution = _solution(
                config, source, run=run, groups=groups["train"], console=console, stop=interruption.stop
            )
        except _Interrupted:
            report.say(INTERRUPTED)
            return interruption.status
        meta = _narrowed(config, dataclasses.replace(run.meta, records=records), solution)
        show_candidates(console, solution)
        head = {"logits": {"kernel": np.float32(solution.kernel), "bias": np.float32(solution.bias)}}
        entry = _entry(meta, source, solution=solution, head=head, groups=groups)
        entry["seconds"] = time.perf_counter() - began
        entry["images_per_second"] = records.images / entry["seconds"]
        checkpoints.save_frozen(_of_stages(run.frozen, meta))
        state = place_replicated(mesh, _state(head, meta))
        meta = dataclasses.replace(meta, history=(entry,), step=1)
        checkpoints.save(items_of(state), meta)
        report.settle(meta.asked)
        report.epoch(entry)
        report.finish([entry], solved(entry), then=following(meta))
    return 0


def _filled(source: BottleneckSource) -> Iterator[tuple[str, Split]]:
    """The splits that have records."""
    yield from ((name, split) for name, split in source.splits.items() if len(split))


def _solution(
    config: ConfigDict,
    source: BottleneckSource,
    *,
    run: Start,
    groups: np.ndarray,
    console: Console,
    stop: Callable[[], int],
) -> Solution:
    """The head that leave-one-out chooses, from the rows of train.

    Raises:
        _Interrupted: `stop` did not return 0. It is called only in a run of one process: several would have to call it
            equally often.
    """
    split, classes = source.splits["train"], len(run.meta.classes)
    backbone = BACKBONES[config.model.backbone]
    balanced = config.optim.class_weight == "balanced"
    with said_steps("solving the head", console=console) as said:

        def progress(step: str) -> None:
            said(step)
            if jax.process_count() == 1 and stop():
                raise _Interrupted

        return solve_head(
            [Part(part.block, part.statistic, part.width, read) for part, read in source.reader_of("train")],
            split.labels,
            classes=classes,
            ranges=candidates(backbone) if chooses_blocks(config.model) else (run.network.pooled,),
            groups=groups,
            class_weights=class_weights(split.labels, classes) if balanced else None,
            penalty=config.optim.penalty,
            seed=config.seed,
            processes=Processes(jax.process_index(), jax.process_count(), sum_over_processes),
            progress=progress,
            names=run.meta.classes,
        )


def _narrowed(config: ConfigDict, meta: Meta, solution: Solution) -> Meta:
    """The meta of the run, with the chosen values in its config, so that later commands need not choose."""
    config, request = (each and each.copy_and_resolve_references() for each in (config, meta.request))
    if chooses_blocks(config.model):
        set_blocks(config.model, solution.blocks)
    for each in filter(None, (config, request)):
        each.optim.penalty = float(solution.penalty)
    stages = BACKBONES[config.model.backbone].up_to(config.model.cut)
    digests = {path: digest for path, digest in meta.frozen_digests.items() if path.split("/")[1] in stages}
    provenance = meta.provenance | {"head": "solved"}
    return dataclasses.replace(meta, config=config, request=request, frozen_digests=digests, provenance=provenance)


def _of_stages(frozen: Tree, meta: Meta) -> Tree:
    """The frozen tree up to the cut of the run; the stage "pool", which has no arrays, is part of it."""
    stages = (*BACKBONES[meta.config.model.backbone].up_to(meta.config.model.cut), "pool")
    return {name: {stage: tree[stage] for stage in stages} for name, tree in frozen.items()}


def _state(head: Tree, meta: Meta) -> TrainState:
    """What a checkpoint holds: the head, and no optimizer."""
    stats: Tree = {stage: {} for stage in head}
    return TrainState(np.ones((), np.int32), head, stats, {}, new_sums(meta.metrics))  # type: ignore[arg-type]


def _entry(
    meta: Meta, source: BottleneckSource, *, solution: Solution, head: Tree, groups: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The entry of the run's one epoch, without its seconds; `candidates` becomes an event of its own.

    Args:
        groups: of each split with records, from `groups_of`; they widen the intervals.
    """
    measured: dict[str, dict[str, Any]] = {}
    for name, of in {"train": "train", "leave_one_out": "train", "validation": "validation"}.items():
        if of not in groups:
            measured[name] = dict.fromkeys(("loss", *meta.metrics))
            continue
        labels = source.splits[of].labels
        left_out = name == "leave_one_out"
        logits = solution.leave_one_out if left_out else logits_of(source, of, meta=meta, head=head["logits"])
        measured[name] = _measured(logits, labels, metrics=meta.metrics)
        if name != "train":
            hits = predictions(logits.astype(np.float32)) == labels
            measured[name] |= {"interval": list(accuracy_interval(hits, groups[of])), "count": len(labels)}
    return {
        **epoch_entry(1, step=1, **measured),
        **({"stage": meta.stage} if meta.stage else {}),
        "data_wait_seconds": 0.0,
        CANDIDATES: {
            "chosen": [solution.blocks[0], solution.blocks[-1]],
            "penalty": solution.penalty,
            "slope": solution.slope,
            "ranges": solution.candidates,
        },
    }


def logits_of(source: BottleneckSource, split: str, *, meta: Meta, head: Tree) -> np.ndarray:
    """Logits float32 (N, outputs) of all records of a split, from the rows of the blocks that the head sees."""
    blocks, count, outputs = pooled_blocks(meta.config.model), len(source.splits[split]), len(head["bias"])
    logits = np.empty((count, outputs), np.float32)
    readers = [(part, read) for part, read in source.reader_of(split) if part.block in blocks]
    ends = np.cumsum([part.width for part, _ in readers])
    for start in range(0, count, ROWS_TOGETHER):
        stop = min(start + ROWS_TOGETHER, count)
        sums = np.tile(np.float64(head["bias"]), (stop - start, 1))
        for end, (part, read) in zip(ends, readers, strict=True):
            sums += read(start, stop).astype(np.float64) @ head["kernel"][end - part.width : end]
        logits[start:stop] = sums
    return logits


def _measured(logits: np.ndarray, labels: np.ndarray, *, metrics: tuple[str, ...]) -> dict[str, Any]:
    """Loss and metrics of all rows."""
    batch = {"label": labels, "mask": np.ones(len(labels), bool)}
    return averages(jax.device_get(_sums_of(logits.astype(np.float32), batch, metrics)), metrics)


def show_candidates(console: Console, solution: Solution) -> None:
    """Prints the ranges that were compared, marks the chosen one, and adds the solver's notes."""
    rows = solution.candidates
    several = len({row["records"] for row in rows}) > 1  # the chosen range was solved again, on all records
    table = Table("blocks", "features", "penalty", "squared error", "accuracy", box=None, pad_edge=False)
    for column in (*(["records"] if several else []), ""):
        table.add_column(column)
    for number, row in enumerate(rows):
        chosen = number == len(rows) - 1 if several else tuple(row["blocks"]) == solution.blocks
        table.add_row(
            first_to_last(row["blocks"]),
            f"{row['columns']:,}",
            f"{row['penalty']:.3g}",
            f"{row['squared_error']:.4f}",
            f"{row['accuracy']:.4f}",
            *([f"{row['records']:,}"] if several else []),
            "chosen" if chosen else "",
        )
    console.print("leave-one-out on train:")
    console.print(table)
    for note in solution.notes:
        console.print(note)
