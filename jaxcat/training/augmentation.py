"""What computes the views of a run's training images: a rule, applied once before the run begins."""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

from jaxcat.bottlenecks.engines.names import XLA
from jaxcat.data.augmentation.table import AUTO, DEVICE, HOST

# Where JAX makes views: on a CPU it is faster than the host (docs/benchmarks_log.md), and a GPU waited for the host. A
# TPU, slow where single pixels are gathered, was not measured.
PLATFORMS = ("cpu", "gpu")


def settle_augmentation(config: ConfigDict) -> None:
    """Replaces `data.augment_on=auto` by what computes the views; `bottleneck.engine` is settled.

    It is the device on `PLATFORMS`, else the host; LiteRT's interpreter takes its images from the host.
    """
    if config.data.augment_on == AUTO:
        by_jax = config.bottleneck.engine == XLA and jax.default_backend() in PLATFORMS
        config.data.augment_on = DEVICE if by_jax else HOST
