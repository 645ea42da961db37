"""Optimizers and schedules by name, and the partition that keeps frozen parameters where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

# Constants not in the config are the defaults of the Keras optimizer of that name, so that recipes carry over.
# rmsprop equals keras.optimizers.RMSprop bit for bit: eps inside the root, accumulator from 0.
RULES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "rmsprop": lambda: optax.scale_by_rms(decay=0.9, eps=1e-7, initial_scale=0.0, eps_in_sqrt=True),
    "adam": lambda: optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-7),
    "adamw": lambda: optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-7),
    "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=0.1, eps=1e-7),
    "sgd": lambda: optax.trace(decay=0.9),  # momentum 0.9 is ours: Keras's SGD has none
}


def make_schedule(optim: ConfigDict, *, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up over `optim.warmup_epochs`, then constant or a cosine to 0 at `steps`."""
    warmup = round(optim.warmup_epochs * steps_per_epoch)
    after = max(1, steps - warmup)
    if optim.schedule == "cosine":
        main = optax.cosine_decay_schedule(optim.learning_rate, after)
    else:
        main = optax.constant_schedule(optim.learning_rate)
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, optim.learning_rate, warmup), main], [warmup])


def make_optimizer(
    optim: ConfigDict, labels: Callable[[Any], Any], *, steps: int, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The transformation for parameters that `labels` marks `head`, `backbone` or `frozen`.

    Clipping and weight decay (decoupled; kernels only, as biases and BN offsets need none) act inside the trained
    branches, so they can neither see nor move what is frozen.
    """
    schedule = make_schedule(optim, steps=steps, steps_per_epoch=steps_per_epoch)

    def branch(scale: float) -> optax.GradientTransformation:
        parts = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
        parts.append(RULES[optim.name]())
        if optim.weight_decay:
            parts.append(optax.add_decayed_weights(optim.weight_decay, mask=is_kernel))
        parts.append(optax.scale_by_learning_rate(lambda step: scale * schedule(step)))
        return optax.chain(*parts)

    branches = {"head": branch(1.0), "backbone": branch(optim.backbone_scale), "frozen": optax.set_to_zero()}
    return optax.partition(branches, labels)


def is_kernel(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)
