"""The train step and the evaluation step, pure functions, and the state that training changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from jaxcat.data.augmentation.device import views, with_views
from jaxcat.models.head import features_dtype
from jaxcat.models.network import Network, Tree
from jaxcat.objectives.sums import masked_sums, zero_sums
from jaxcat.system.compilation import PROGRAMS_KEPT, jit
from jaxcat.system.devices import replicated
from jaxcat.training.accumulation import added
from jaxcat.training.averaging import moved_average, start_of_average
from jaxcat.training.mixing import MIXES, mixed

Batch = dict[str, Array]

# Names in a batch of what the loss needs besides logits; the last two are of mixed rows.
LABELS = ("label", "mask", "other_label", "share")


class TrainState(NamedTuple):
    """Everything that training changes, and nothing else.

    Attributes:
        step: int32 (), optimizer steps taken.
        trained: parameters of the suffix.
        stats: BatchNorm statistics of the suffix; they change only with `model.train_bn`.
        opt_state: of the trained parameters.
        sums: of this epoch so far: `loss` float32, `count` and a sum for each metric int32; also `bad_step` int32, the
            first step of the epoch whose loss was not finite, or -1.
        averaged: moving average of the trained parameters; None without `optim.average`.
    """

    step: Array
    trained: Tree
    stats: Tree
    opt_state: Any
    sums: dict[str, Array]
    averaged: Tree | None = None

    @property
    def model(self) -> Tree:
        """The parameters that the run is used with: the averaged ones if there are any."""
        return self.trained if self.averaged is None else self.averaged


def new_state(
    trained: Tree,
    stats: Tree,
    tx: optax.GradientTransformation,
    *,
    metrics: Sequence[str] = ("accuracy",),
    average: bool = False,
) -> TrainState:
    """The state before the first step.

    Args:
        trained, stats: of the suffix.
        tx: the optimizer.
        metrics: names in METRICS.
        average: whether to keep a moving average of the parameters.
    """
    averaged = start_of_average(trained) if average else None
    step: Any = np.zeros((), np.int32)
    sums: Any = new_sums(metrics)
    return TrainState(step, trained, stats, tx.init(trained), sums, averaged)


def new_sums(metrics: Sequence[str]) -> dict[str, np.ndarray]:
    """The sums at the beginning of an epoch."""
    return zero_sums(metrics) | {"bad_step": np.full((), -1, np.int32)}


def items_of(state: TrainState) -> dict[str, Tree]:
    """The state as a checkpoint holds it: what evaluation needs, and what only training needs."""
    training = {"opt_state": state.opt_state, "step": state.step, "sums": state.sums}
    if state.averaged is not None:
        training["trained"] = state.trained
    return {"model": {"params": state.model, "stats": state.stats}, "training": training}


def state_of(items: dict[str, Tree]) -> TrainState:
    """The inverse of `items_of`."""
    model, training = items["model"], items["training"]
    trained, averaged = model["params"], None
    if "trained" in training:
        trained, averaged = training["trained"], model["params"]
    return TrainState(training["step"], trained, model["stats"], training["opt_state"], training["sums"], averaged)


def make_train_step(
    network: Network,
    tx: optax.GradientTransformation,
    *,
    seed: int,
    metrics: Sequence[str] = ("accuracy",),
    class_weights: Sequence[float] | np.ndarray | None = None,
    label_smoothing: float = 0.0,
    average: float = 0.0,
    accumulate: int = 1,
    mix: str = "none",
    mix_alpha: float = 0.2,
) -> Callable[[TrainState, Tree, Batch], TrainState]:
    """The train step, `step(state, frozen, batch) -> state`.

    `batch` holds `image` uint8 (B, H, W, 3) or, from the cache, `bottleneck` (B, …); `label` int32 (B,) and `mask` bool
    (B,); and, if the device makes views, the arrays that it makes them from. Only the suffix is differentiated, so the
    prefix has no backward pass. The key of dropout and mixing depends on seed and step only, so it is not saved.

    Args:
        network: with train_bn off if `accumulate` is above 1.
        tx: the optimizer.
        seed: of the run.
        metrics: names in METRICS.
        class_weights: float32 (classes,), factors on the loss of a row, by its label.
        label_smoothing: see `losses`.
        average: decay of the moving average, if the state has one.
        accumulate: number of parts of a batch that go through the suffix one after the other; B is a multiple of it.
        mix: a name in MIXES.
        mix_alpha: see `mixed`.
    """
    weights = None if class_weights is None else jnp.asarray(class_weights, jnp.float32)
    sums_of = partial(masked_sums, metrics=metrics, class_weights=weights, label_smoothing=label_smoothing)
    gradients_of = _gradients(network, sums_of, parts=accumulate)

    def key_of(step: Array) -> Array:
        return jax.random.fold_in(jax.random.key(seed), step)

    def step(state: TrainState, frozen: Tree, batch: Batch) -> TrainState:
        batch = with_views(batch)  # first, so that all that follows sees images of the network's size
        if MIXES[mix].rows:
            batch = mixed(batch, MIXES[mix], alpha=mix_alpha, key=key_of(state.step))
        x = boundary_input(network, frozen, batch)
        gradients, stats, sums = gradients_of(state.trained, state.stats, x, batch, key_of(state.step))
        updates, opt_state = tx.update(gradients, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        first_bad = jnp.where(jnp.isfinite(sums["loss"]), -1, state.step)
        bad_step = jnp.where(state.sums["bad_step"] < 0, first_bad, state.sums["bad_step"])
        total = {name: state.sums[name] + sums[name] for name in sums} | {"bad_step": bad_step}
        averaged = state.averaged
        if averaged is not None:
            averaged = moved_average(averaged, trained, decay=average, step=state.step)
        return TrainState(state.step + 1, trained, stats, opt_state, total, averaged)

    return step


def _gradients(
    network: Network, sums_of: Callable[[Array, Batch], dict[str, Array]], *, parts: int
) -> Callable[[Tree, Tree, Array, Batch, Array], tuple[Tree, Tree, dict[str, Array]]]:
    """`f(trained, stats, x, batch, key) -> (gradients of the mean loss, statistics, sums)`, from `parts` of a batch."""

    def loss_of(
        trained: Tree, stats: Tree, x: Array, rows: Batch, key: Array, count: Array | None = None
    ) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
        """The mean loss, of a part of a batch of `count` rows if that is given, and (statistics, sums)."""
        logits, stats = network.suffix(trained, stats, x, train=True, mask=rows["mask"], key=key)
        sums = sums_of(logits, rows)
        return sums["loss"] / (sums["count"] if count is None else count), (stats, sums)

    of_rows = jax.grad(loss_of, has_aux=True)

    def whole(trained: Tree, stats: Tree, x: Array, batch: Batch, key: Array) -> tuple[Tree, Tree, dict[str, Array]]:
        gradients, (stats, sums) = of_rows(trained, stats, x, batch, key)
        return gradients, stats, sums

    def divided(trained: Tree, stats: Tree, x: Array, batch: Batch, key: Array) -> tuple[Tree, Tree, dict[str, Array]]:
        count = jnp.sum(batch["mask"])

        def of_part(part: tuple[Array, Batch], key: Array) -> tuple[Tree, dict[str, Array]]:
            gradients, (_, sums) = of_rows(trained, stats, *part, key, count)
            return gradients, sums

        labels = {name: batch[name] for name in LABELS if name in batch}
        gradients, sums = added(of_part, (x, labels), parts=parts, key=key)
        return gradients, stats, sums

    return whole if parts == 1 else divided


def boundary_input(network: Network, frozen: Tree, batch: Batch) -> Array:
    """The input of the boundary stage: the bottlenecks in the batch if it has them, else computed by the prefix.

    Both have the same dtype, so that float32 rows give the same numbers as images.
    """
    if "bottleneck" in batch:
        return batch["bottleneck"].astype(features_dtype(network.bottleneck.parts, network.dtype))
    return network.prefix(frozen, views(batch))


def repeated(step: Callable[[TrainState, Tree, Batch], TrainState]) -> Callable[[TrainState, Tree, Batch], TrainState]:
    """The same step over K stacked batches, (K, B, …) each, in one compiled loop."""

    def steps(state: TrainState, frozen: Tree, stacked: Batch) -> TrainState:
        return jax.lax.scan(lambda state, batch: (step(state, frozen, batch), None), state, stacked)[0]

    return steps


def steps_in(batch: Batch) -> int:
    """How many steps a batch holds: K if K are stacked, else 1."""
    return batch["label"].shape[0] if batch["label"].ndim == 2 else 1


def make_eval_step(
    network: Network, metrics: Sequence[str] = ("accuracy",)
) -> Callable[[Tree, Tree, Tree, Batch], tuple[Array, dict[str, Array]]]:
    """The evaluation step, `step(trained, stats, frozen, batch) -> (logits (B, outputs), masked sums)`."""

    def step(trained: Tree, stats: Tree, frozen: Tree, batch: Batch) -> tuple[Array, dict[str, Array]]:
        logits, _ = network.suffix(trained, stats, boundary_input(network, frozen, batch))
        return logits, masked_sums(logits, batch, metrics)

    return step


@lru_cache(maxsize=PROGRAMS_KEPT)
def jitted_eval_step(
    network: Network, metrics: tuple[str, ...], mesh: Mesh
) -> Callable[[Tree, Tree, Tree, Batch], tuple[Array, dict[str, Array]]]:
    """The evaluation step, which is compiled once for equal arguments."""
    return jit(make_eval_step(network, metrics), out_shardings=replicated(mesh))
