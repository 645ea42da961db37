"""A sweep of learning rates on part of train, before the first step of a run: `optim.find_learning_rate`.

Copies of the trained stages start with the run's first values. Each is trained for a few steps with its own rate, by
the run's own step, and then measured on batches of train that it was not trained on. The rate with the least mean loss
is taken. Copies of a head are trained together in one program; copies with blocks one after the other.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.table import Table

from jaxcat.data.streaming import Source
from jaxcat.errors import ConfigError, TrainingError
from jaxcat.models.network import Network, Tree
from jaxcat.objectives.sums import averages
from jaxcat.system.compilation import jit
from jaxcat.system.devices import place_replicated, replicated
from jaxcat.system.files import never
from jaxcat.training.epoch import saves_memory
from jaxcat.training.mixing import MIXES
from jaxcat.training.optim import make_optimizer
from jaxcat.training.reporting import Reporter
from jaxcat.training.search_batches import as_bottlenecks, batches_of_fold, first_batches, held_out
from jaxcat.training.start import Start
from jaxcat.training.steps import (
    Batch,
    TrainState,
    make_eval_step,
    make_train_step,
    new_state,
)

COPIES_BYTES = 2**30  # of the copies, with their optimizers, that are trained together


class Sweep(NamedTuple):
    """The size of a sweep.

    Attributes:
        rates: learning rates, in rising order.
        folds: how often each rate is tried, each time with other batches held out and other random numbers.
        steps: steps of each copy, if the run has as many.
    """

    rates: tuple[float, ...]
    folds: int
    steps: int


def _rates(lowest: int, highest: int, *, each: int) -> tuple[float, ...]:
    """Rates from 10**lowest to 10**highest, `each` to a factor of ten, with two digits, as they can be typed."""
    exponents = np.linspace(lowest, highest, (highest - lowest) * each + 1)
    return tuple(float(f"{10**exponent:.1e}") for exponent in exponents)


OF_HEADS = Sweep(_rates(-5, 1, each=4), folds=3, steps=300)
OF_BLOCKS = Sweep(_rates(-6, -2, each=2), folds=1, steps=40)


class Outcome(NamedTuple):
    """What one learning rate reached on the batches held out.

    Attributes:
        rate: the learning rate.
        losses: mean loss of each fold; not finite if training diverged.
        accuracy: mean over the folds.
    """

    rate: float
    losses: tuple[float, ...]
    accuracy: float

    @property
    def loss(self) -> float:
        """The mean over the folds; infinite if one of them diverged."""
        return float(np.mean(self.losses)) if np.isfinite(self.losses).all() else float("inf")


def find_rate(
    config: ConfigDict,
    run: Start,
    *,
    source: Source,
    options: Mapping[str, Any],
    mesh: Mesh,
    report: Reporter,
    stop: Callable[[], int] = never,
) -> float | None:
    """The learning rate with the least loss on batches of train that are held out; prints the whole curve.

    Args:
        config: the config of the run.
        run: a run that begins now.
        source: prepared; the first batches of its first epoch are used.
        options: of `make_train_step`, without the optimizer.
        mesh: the mesh of all devices.
        report: prints.
        stop: asked after every step of a copy with blocks; if its answer is not 0, the result is None.

    Raises:
        ConfigError: train has a single batch.
        TrainingError: every rate diverged.
    """
    network, frozen = run.network, run.frozen
    blocks = network.boundary in network.blocks
    sweep = OF_BLOCKS if blocks else OF_HEADS
    keep_images = MIXES[config.optim.mix].mixes == "image"  # which the step mixes before the prefix
    batches = first_batches(source, None if keep_images else jit(lambda batch: as_bottlenecks(network, frozen, batch)))
    if len(batches) < 2:
        raise ConfigError(
            f"--config.optim.find_learning_rate=True needs two batches of train, and a batch of {config.batch_size} is "
            "all of it: set --config.batch_size to at most half of the images"
        )
    steps = min(sweep.steps, config.epochs * -(-len(source.splits["train"]) // config.batch_size))
    report.say(
        f"looking for the learning rate: {len(sweep.rates)} rates, {sweep.folds} × {steps} steps each, on "
        f"{len(batches)} batches of train, {held_out(len(batches))} of them held out"
    )
    copies = Copies(config, network, frozen=frozen, options=options, steps=steps, mesh=mesh)
    state = place_replicated(mesh, copies.first(run.trained))
    found = copies.one_by_one(state, batches, sweep, stop=stop) if blocks else copies.together(state, batches, sweep)
    if found is None:
        return None
    best = min(found, key=lambda outcome: outcome.loss)
    if not np.isfinite(best.loss):
        raise TrainingError("--config.optim.find_learning_rate=True: training diverged with every learning rate tried")
    report.console.print(curve(found, best))
    edge = "; it is the lowest or highest that was tried" if best.rate in (sweep.rates[0], sweep.rates[-1]) else ""
    report.say(f"learning rate {best.rate:g} has the least loss on the batches held out{edge}")
    return best.rate


class Copies:
    """Copies of the trained stages, each with its own learning rate."""

    def __init__(
        self, config: ConfigDict, network: Network, *, frozen: Tree, options: Mapping[str, Any], steps: int, mesh: Mesh
    ) -> None:
        """`options` are those of `make_train_step`, `steps` is the number of steps of each copy."""
        self._jit = functools.partial(jit, out_shardings=replicated(mesh))
        self._network, self._frozen, self._options, self._steps = network, frozen, options, steps
        of_one = config.optim.copy_and_resolve_references()
        of_one.learning_rate = 1.0
        self._tx = make_optimizer(
            of_one, network.labels, steps=steps, steps_per_epoch=steps / config.epochs, blocks=network.blocks
        )
        self._evaluate = make_eval_step(network, options["metrics"])
        self._saves_memory = saves_memory(config)

    def first(self, trained: Tree) -> TrainState:
        """The state before the first step, the same for all copies."""
        average = bool(self._options["average"])
        metrics = self._options["metrics"]
        return new_state(trained["params"], trained["stats"], self._tx, metrics=metrics, average=average)

    def step(self, rate: Any, fold: Any, state: TrainState, frozen: Tree, batch: Batch) -> TrainState:
        """One step of the copy that has this rate; both may be traced."""
        seed = self._options["seed"] + fold
        options = {**self._options, "seed": seed}
        return make_train_step(self._network, at_rate(self._tx, rate), **options)(state, frozen, batch)

    def together(self, state: TrainState, batches: Sequence[Batch], sweep: Sweep) -> list[Outcome]:
        """All copies in one program, as many at a time as `COPIES_BYTES` hold."""
        order = [batches_of_fold(len(batches), fold, steps=self._steps) for fold in range(sweep.folds)]
        trained_on, measured_on = (jnp.asarray(np.stack(each)) for each in zip(*order, strict=True))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state.trained, state.opt_state)))
        pairs = list(itertools.product(sweep.rates, range(sweep.folds)))
        rates, folds = (jnp.asarray(each) for each in zip(*pairs, strict=True))

        def all_copies(state: TrainState, frozen: Tree, batches: Sequence[Batch]) -> dict[str, jax.Array]:
            rows = jax.tree.map(lambda *each: jnp.stack(each), *batches)

            def batch_at(index: jax.Array) -> Batch:
                return jax.tree.map(lambda leaf: leaf[index], rows)

            def of_one(pair: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
                rate, fold = pair

                def take(state: TrainState, index: jax.Array) -> tuple[TrainState, None]:
                    return self.step(rate, fold, state, frozen, batch_at(index)), None

                last = jax.lax.scan(take, state, trained_on[fold])[0]
                sums = jax.lax.map(
                    lambda index: self._evaluate(last.model, last.stats, frozen, batch_at(index))[1], measured_on[fold]
                )
                return jax.tree.map(lambda leaf: leaf.sum(axis=0), sums)

            return jax.lax.map(of_one, (rates, folds), batch_size=max(1, min(len(pairs), COPIES_BYTES // size)))

        found = jax.device_get(self._jit(all_copies)(state, self._frozen, list(batches)))
        sums = [{name: array[number] for name, array in found.items()} for number in range(len(pairs))]
        return self._outcomes(sums, sweep)

    def one_by_one(
        self, state: TrainState, batches: Sequence[Batch], sweep: Sweep, *, stop: Callable[[], int]
    ) -> list[Outcome] | None:
        """One copy after the other: gradients of convolutions are slow in a loop, and blocks take much memory."""
        step, evaluate = self._jit(self.step, keep_barriers=self._saves_memory), self._jit(self._evaluate)
        found = []
        for rate, fold in itertools.product(sweep.rates, range(sweep.folds)):
            copy = state
            trained_on, measured_on = batches_of_fold(len(batches), fold, steps=self._steps)
            for index in trained_on:
                copy = step(rate, fold, copy, self._frozen, batches[index])
                jax.block_until_ready(copy.step)  # else many states would be in memory
                if stop():
                    return None
            sums = [evaluate(copy.model, copy.stats, self._frozen, batches[index])[1] for index in measured_on]
            found.append(jax.device_get(jax.tree.map(lambda *each: sum(each), *sums)))
        return self._outcomes(found, sweep)

    def _outcomes(self, sums: Sequence[dict[str, np.ndarray]], sweep: Sweep) -> list[Outcome]:
        """The outcome of each rate, from the sums of all folds of the first, of the second, and so on."""
        outcomes = []
        for number, rate in enumerate(sweep.rates):
            folds = [
                averages({name: float(value) for name, value in each.items()}, self._options["metrics"])
                for each in sums[number * sweep.folds :][: sweep.folds]
            ]
            accuracy = float(np.mean([each["accuracy"] for each in folds]))
            outcomes.append(Outcome(rate, tuple(each["loss"] for each in folds), accuracy))
        return outcomes


def at_rate(tx: optax.GradientTransformation, rate: Any) -> optax.GradientTransformation:
    """An optimizer made for a learning rate of 1, at another one: every update is proportional to it."""

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return jax.tree.map(lambda leaf: rate * leaf, updates), state

    return optax.GradientTransformation(tx.init, update)


def curve(found: Sequence[Outcome], best: Outcome) -> Table:
    """A table with a row for each rate: loss and accuracy on the batches held out, and a bar of the loss's length."""
    table = Table(box=None, pad_edge=False)
    for name in ("learning rate", "loss held out", "accuracy"):
        table.add_column(name, justify="right")
    table.add_column("")
    highest = max(outcome.loss for outcome in found if np.isfinite(outcome.loss))
    for outcome in found:
        bar = "diverged"
        if np.isfinite(outcome.loss):
            bar = "█" * max(1, round(30 * outcome.loss / highest))
        mark = "  ← least" if outcome is best else ""
        table.add_row(f"{outcome.rate:g}", f"{outcome.loss:.4f}", f"{outcome.accuracy:.4f}", bar + mark)
    return table
