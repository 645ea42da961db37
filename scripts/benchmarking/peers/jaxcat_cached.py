"""jaxcat on bottlenecks, with the functions of the train command: rows, to the device, and the steps."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import jax
from rich.console import Console

from jaxcat.config import default
from jaxcat.data.sources import open_data
from jaxcat.flags import validate
from jaxcat.models.completion import complete
from jaxcat.system.devices import make_mesh, place_replicated
from jaxcat.training.epoch import compile_steps
from jaxcat.training.loop import open_source
from jaxcat.training.optim import make_optimizer
from jaxcat.training.origin import find_origin
from jaxcat.training.start import start
from jaxcat.training.steps import new_state


def describe() -> dict[str, str]:
    return {"version": f"jax {jax.__version__}", "device": str(jax.devices()[0])}


def epoch(
    *, data: str, weights: str, size: int, batch: int, train_from: str, part: str = "whole"
) -> Callable[[int], None]:
    """A call is an epoch over the bottlenecks of `data`/train, which are computed here first; or, of it, the "rows"
    alone, read and put on the device, or the "steps" alone, on rows put there before."""
    config = default()
    config.data.dir, config.model.weights, config.data.image_size = data, weights, size
    config.batch_size, config.bottleneck.views = batch, 1
    config.model.train_from, config.optim.learning_rate = train_from, 1e-6
    validate(config)
    complete(config)
    mesh, workdir, opened = make_mesh(), Path(os.environ["JAXCAT_CACHE"]), open_data(config)
    origin = find_origin(config, workdir, meta=None, classes=opened.classes)
    run = start(config, workdir, origin=origin, meta=None, classes=opened.classes, mesh=mesh)
    source = open_source(config, opened, run=run, mesh=mesh)
    source.prepare(Console(quiet=True))
    labels = source.splits["train"].labels
    tx = make_optimizer(config.optim, run.network.labels, steps=1000, steps_per_epoch=-(-len(labels) // batch))
    state = place_replicated(mesh, new_state(run.trained["params"], run.trained["stats"], tx))
    take = compile_steps(config, run, tx=tx, labels=labels, mesh=mesh).take
    number, on_device = itertools.count(), list(source.train(0, first=0)) if part == "steps" else []

    def epochs(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            for rows in on_device or source.train(next(number), first=0):
                if part == "rows":
                    jax.block_until_ready(rows)
                else:
                    state = take(state, rows)
        jax.block_until_ready(state)

    return epochs


def images(data: str) -> int:
    """How many an epoch has."""
    config = default()
    config.data.dir = data
    return len(open_data(config).splits["train"])


TASKS = {"epoch": epoch}
