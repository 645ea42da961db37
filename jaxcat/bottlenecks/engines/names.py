"""The table of engines, which compute bottlenecks, and what each of them cannot do. Imports no framework."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from jaxcat.data.augmentation.table import DEVICE, views_of
from jaxcat.errors import ConfigError
from jaxcat.wording import not_one_of

XLA = "xla"
AUTO = "auto"  # a request for the engine that `training.engine` chooses; no run stores it
LEAST_RECORDS = 300  # of train and validation: with fewer, converting takes longer than it saves (docs/benchmarks.md)


@dataclasses.dataclass(frozen=True)
class Engine:
    """One row of the table.

    Attributes:
        meaning: one line for `--help`.
        quantized: whether weights of convolutions are 8-bit integers.
    """

    meaning: str
    quantized: bool = False


ENGINES = {
    XLA: Engine("JAX, on any device; the float32 or bfloat16 of model.dtype"),
    "litert_float32": Engine("LiteRT's interpreter on the CPU; equal to xla but for rounding"),
    "litert_int8": Engine("the same with 8-bit weights: three to four times as fast, features differ a little", True),
}
# What a request may say.
CHOICES = {
    AUTO: Engine(
        f"litert_int8 on a CPU, from {LEAST_RECORDS} records on, if it can compute what is asked for; else xla"
    ),
    **ENGINES,
}


def engine_of(name: str) -> Engine:
    """The row of an engine. Raises ConfigError if there is none of this name, as in a file from elsewhere."""
    if problem := not_one_of(name, ENGINES):
        raise ConfigError(f"--config.bottleneck.engine={name}: {problem}")
    return ENGINES[name]


def unsupported(config: ConfigDict) -> str:
    """Why LiteRT cannot compute the bottlenecks of a configuration, naming the setting; "" if it can."""
    if not config.bottleneck.views:
        return "--config.bottleneck.views=0 keeps no bottlenecks"
    if config.model.train_from != "head":
        return f"--config.model.train_from={config.model.train_from} trains a block"
    if config.model.dtype != "float32":
        return f"--config.model.dtype={config.model.dtype} needs XLA"
    if views_of(config).changed and config.data.augment_on == DEVICE:
        return f"--config.data.augment_on={DEVICE} makes views by JAX"
    return ""
