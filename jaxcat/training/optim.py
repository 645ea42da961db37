"""Optimizers and schedules by name, and the partition that keeps frozen parameters unchanged.

A new optimizer or schedule is one row of its table. The functions in a row take the module optax as an argument,
so the tables import no framework, and commands check settings against them before they import JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_collections import ConfigDict

if TYPE_CHECKING:
    import optax


class Optimizer(NamedTuple):
    """One row of the table.

    Attributes:
        meaning: one line for `--help`.
        build: module optax → transformation of gradients, before weight decay and the learning rate; None if the head
            is solved and not trained.
        needs_decay: whether it needs `optim.weight_decay`, and without it is the same as another optimizer.
    """

    meaning: str
    build: Callable[[Any], optax.GradientTransformation] | None
    needs_decay: bool = False


# Constants not in the config are the defaults of the Keras optimizer of that name, so that settings carry over.
OPTIMIZERS: dict[str, Optimizer] = {
    "rmsprop": Optimizer(
        "as in Keras, bit for bit",  # eps inside the root, accumulator from 0
        lambda optax: optax.scale_by_rms(decay=0.9, eps=1e-7, initial_scale=0.0, eps_in_sqrt=True),
    ),
    "adam": Optimizer("as in Keras", lambda optax: optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-7)),
    "adamw": Optimizer(
        "adam with optim.weight_decay",
        lambda optax: optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-7),
        needs_decay=True,
    ),
    "adagrad": Optimizer("as in Keras", lambda optax: optax.scale_by_rss(initial_accumulator_value=0.1, eps=1e-7)),
    "sgd": Optimizer("with momentum 0.9 (0 in Keras)", lambda optax: optax.trace(decay=0.9)),
    "exact": Optimizer("no steps: a linear head on frozen blocks, solved by least squares", None),
}


def is_exact(config: ConfigDict) -> bool:
    """Whether the head is solved and not trained."""
    return OPTIMIZERS[config.optim.name].build is None


class Schedule(NamedTuple):
    """One row of the table.

    Attributes:
        meaning: one line for `--help`.
        build: (module optax, highest rate, steps) → learning rate by step, counted from the end of the warm-up.
        rises: whether it begins with a rise of its own, so that a warm-up cannot be combined with it.
    """

    meaning: str
    build: Callable[[Any, float, int], optax.Schedule]
    rises: bool = False


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule("stays the same", lambda optax, rate, steps: optax.constant_schedule(rate)),
    "cosine": Schedule(
        "falls to 0 at the last step", lambda optax, rate, steps: optax.cosine_decay_schedule(rate, steps)
    ),
    "one_cycle": Schedule(  # arXiv:1708.07120, with the constants of torch and fastai; momentum stays as it is
        "rises from 1/25 over the first 30 % of the steps, then falls to almost 0",
        lambda optax, rate, steps: optax.cosine_onecycle_schedule(
            steps, rate, pct_start=0.3, div_factor=25.0, final_div_factor=1e4
        ),
        rises=True,
    ),
}


def make_schedule(optim: ConfigDict, *, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Learning rate by step: a linear rise from 0 over `optim.warmup_epochs`, then `optim.schedule` until `steps`."""
    import optax

    warmup = round(optim.warmup_epochs * steps_per_epoch)
    main = SCHEDULES[optim.schedule].build(optax, optim.learning_rate, max(1, steps - warmup))
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, optim.learning_rate, warmup), main], [warmup])


def make_optimizer(
    optim: ConfigDict,
    labels: Callable[[Any], Any],
    *,
    steps: int,
    steps_per_epoch: float,
    blocks: Sequence[str] = (),
) -> optax.GradientTransformation:
    """The transformation for parameters that `labels` marks `head`, `backbone` or `frozen`.

    Clipping and weight decay act inside the trained branches, so they can neither see nor change what is frozen. Decay
    is decoupled and acts on kernels only: biases and offsets of batch normalisation need none.

    Args:
        labels: tree of parameters by stage → the same tree with a label for each leaf.
        steps: number of steps of the run.
        steps_per_epoch: number of steps of an epoch.
        blocks: names of the backbone's blocks in the order the data flows, for `optim.layer_decay`.
    """
    import optax

    schedule = make_schedule(optim, steps=steps, steps_per_epoch=steps_per_epoch)
    build = OPTIMIZERS[optim.name].build
    assert build is not None, "exact heads have no optimizer"

    def branch(scale: float) -> optax.GradientTransformation:
        parts = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
        parts.append(build(optax))
        if optim.weight_decay:
            parts.append(optax.add_decayed_weights(optim.weight_decay, mask=_is_kernel))
        parts.append(optax.scale_by_learning_rate(lambda step: scale * schedule(step)))
        return optax.chain(*parts)

    branches = {"head": branch(1.0), "backbone": branch(optim.backbone_scale), "frozen": optax.set_to_zero()}
    partition = optax.partition(branches, labels)
    if optim.layer_decay == 1.0:
        return partition
    factors = layer_factors(blocks, optim.layer_decay)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = partition.update(gradients, state, params)
        return {stage: _times(factors.get(stage, 1.0), leaves) for stage, leaves in updates.items()}, state

    # Not a link of the chain: with it, the tree of the optimizer's state would have another shape.
    return optax.GradientTransformation(partition.init, update)


def layer_factors(blocks: Sequence[str], decay: float) -> dict[str, float]:
    """Block → factor on its learning rate: `decay` for the last block, and once more for each block before it."""
    return {block: decay**number for number, block in enumerate(reversed(blocks), start=1)}


def _times(factor: float, tree: Any) -> Any:
    import jax

    return jax.tree.map(lambda leaf: factor * leaf, tree)


def _is_kernel(tree: Any) -> Any:
    import jax

    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)
