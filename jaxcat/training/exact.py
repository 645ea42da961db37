"""A run with an exact head: bottlenecks, a choice of blocks and penalty by leave-one-out on train, one checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.table import Table

from jaxcat.bottlenecks.source import BottleneckSource
from jaxcat.data.pixel_groups import groups_of
from jaxcat.data.records import Data
from jaxcat.models.backbone import BACKBONES, pooled_blocks
from jaxcat.models.completion import candidates, chooses_blocks, set_blocks
from jaxcat.models.network import Tree
from jaxcat.objectives.exact.choice import name_of
from jaxcat.objectives.exact.parts import Part, Processes
from jaxcat.objectives.exact.solve import Solution, solve_head
from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.objectives.metrics import averages, masked_sums, predictions
from jaxcat.runs.checkpoints import Checkpoints
from jaxcat.runs.meta import Meta
from jaxcat.system.console import Console, said_steps
from jaxcat.system.devices import place_replicated
from jaxcat.system.interruption import Interruption
from jaxcat.system.processes import sum_over_processes
from jaxcat.training.describe import describe_run
from jaxcat.training.epoch import class_weights, epoch_record
from jaxcat.training.records import check_records, records_of, remember
from jaxcat.training.reporting import Reporter
from jaxcat.training.requests import unused
from jaxcat.training.start import Start
from jaxcat.training.steps import TrainState, items_of, new_sums
from jaxcat.training.writers import CANDIDATES

ROWS_TOGETHER = 1024  # records whose logits are computed at once
INTERRUPTED = "interrupted: the same command continues from there"


def solve(config: ConfigDict, workdir: Path, *, run: Start, data: Data, source: BottleneckSource, mesh: Mesh) -> int:
    """Solves the head of a new run and saves it as the run's only step.

    Args:
        config: as asked for, completed; the blocks that the head sees may be open.
        run: a start whose network has all blocks among which `config` lets jaxcat choose.
        source: of that network, not prepared.

    Returns:
        The exit status: 0, or 130 or 143 if a signal interrupted the run; the bottlenecks computed so far are kept.
    """
    console = Console(quiet=jax.process_index() != 0)
    with Checkpoints(workdir) as checkpoints, Interruption(mesh) as interruption:
        validated = bool(len(source.splits["validation"]))
        describe_run(console, config, run, source=source.describe(), mesh=mesh, validated=validated)
        if ignored := unused(config):
            console.print(f"not used by an exact head: {', '.join(ignored)}", markup=False)
        if status := source.prepare(console, stop=interruption.stop):
            console.print(INTERRUPTED)
            return status
        records = check_records(run.meta, workdir, records=records_of(source.splits, config))
        records = remember(records, workdir, source=source, data=data, before=run.meta, console=console)
        began = time.perf_counter()
        solution = _solution(config, source, run=run, console=console)
        if status := interruption.stop():
            console.print(INTERRUPTED)
            return status
        meta = _narrowed(config, dataclasses.replace(run.meta, records=records), solution)
        show_candidates(console, solution)
        head = {"logits": {"kernel": np.float32(solution.kernel), "bias": np.float32(solution.bias)}}
        record = _record(meta, source, solution=solution, head=head)
        record["seconds"] = time.perf_counter() - began
        record["images_per_second"] = records.images / record["seconds"]
        checkpoints.save_frozen(_of_stages(run.frozen, meta))
        state = place_replicated(mesh, _state(head, meta))
        checkpoints.save(items_of(state), dataclasses.replace(meta, history=(record,), step=1))
        with Reporter(workdir, [], config=meta.config, leading=jax.process_index() == 0) as report:
            report.epoch(record)
            report.finish([record], "the head is solved")
    return 0


def _solution(config: ConfigDict, source: BottleneckSource, *, run: Start, console: Console) -> Solution:
    """The head that leave-one-out chooses, from the rows of train."""
    split, classes = source.splits["train"], len(run.meta.classes)
    backbone = BACKBONES[config.model.backbone]
    balanced = config.optim.class_weight == "balanced"
    with said_steps("solving the head", console=console) as said:
        return solve_head(
            [Part(part.block, part.statistic, part.width, read) for part, read in source.reader_of("train")],
            split.labels,
            classes=classes,
            ranges=candidates(backbone) if chooses_blocks(config.model) else (run.network.pooled,),
            groups=groups_of(split, source.digests["train"], console=console),
            class_weights=class_weights(split.labels, classes) if balanced else None,
            penalty=config.optim.penalty,
            seed=config.seed,
            processes=Processes(jax.process_index(), jax.process_count(), sum_over_processes),
            progress=said,
        )


def _narrowed(config: ConfigDict, meta: Meta, solution: Solution) -> Meta:
    """The meta of the run with what was chosen in its config, so that a later command sees no open choice."""
    config = config.copy_and_resolve_references()
    set_blocks(config.model, solution.blocks)
    config.optim.penalty = float(solution.penalty)
    stages = BACKBONES[config.model.backbone].up_to(config.model.cut)
    digests = {path: digest for path, digest in meta.frozen_digests.items() if path.split("/")[1] in stages}
    return dataclasses.replace(meta, config=config, frozen_digests=digests)


def _of_stages(frozen: Tree, meta: Meta) -> Tree:
    """The frozen tree up to the cut of the run; the stage "pool", which has no arrays, is part of it."""
    stages = (*BACKBONES[meta.config.model.backbone].up_to(meta.config.model.cut), "pool")
    return {name: {stage: tree[stage] for stage in stages} for name, tree in frozen.items()}


def _state(head: Tree, meta: Meta) -> TrainState:
    """What a checkpoint holds: the head, and no optimizer."""
    stats: Tree = {stage: {} for stage in head}
    return TrainState(np.ones((), np.int32), head, stats, {}, new_sums(meta.metrics))  # type: ignore[arg-type]


def _record(meta: Meta, source: BottleneckSource, *, solution: Solution, head: Tree) -> dict[str, Any]:
    """The record of the run's one epoch, without its seconds; `candidates` becomes an event of its own."""
    splits, metrics = source.splits, meta.metrics
    logits = {name: logits_of(source, name, meta=meta, head=head["logits"]) for name in splits if len(splits[name])}
    logits["leave_one_out"] = solution.leave_one_out
    measured: dict[str, dict[str, Any]] = {}
    for name in ("train", "leave_one_out", "validation"):
        if name not in logits:
            measured[name] = dict.fromkeys(("loss", *metrics))
            continue
        split = splits["train" if name == "leave_one_out" else name]
        measured[name] = _measured(logits[name], split.labels, metrics=metrics)
        if name != "train":
            groups = None if split.groups is None else np.array(split.groups)
            hits = np.asarray(predictions(jnp.asarray(logits[name]))) == split.labels
            measured[name] |= {"interval": list(accuracy_interval(hits, groups)), "count": len(split)}
    return {
        **epoch_record(1, step=1, **measured),
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


def _measured(logits: np.ndarray, labels: np.ndarray, *, metrics: Sequence[str]) -> dict[str, Any]:
    """Loss and metrics of all rows."""
    batch = {"label": jnp.asarray(labels), "mask": jnp.ones(len(labels), bool)}
    sums_of = jax.jit(functools.partial(masked_sums, metrics=metrics))  # one program, not one for each operation
    sums = jax.device_get(sums_of(jnp.asarray(logits, jnp.float32), batch))
    return averages(sums, metrics)


def show_candidates(console: Console, solution: Solution) -> None:
    """Prints the ranges that were compared, the best of them marked, and what the solver says about them."""
    table = Table("blocks", "features", "penalty", "squared error", "accuracy", "", box=None, pad_edge=False)
    for row in solution.candidates:
        table.add_row(
            name_of(row["blocks"]),
            f"{row['columns']:,}",
            f"{row['penalty']:.3g}",
            f"{row['squared_error']:.4f}",
            f"{row['accuracy']:.4f}",
            "chosen" if tuple(row["blocks"]) == solution.blocks else "",
        )
    console.print("leave-one-out on train:")
    console.print(table)
    for note in solution.notes:
        console.print(note)
