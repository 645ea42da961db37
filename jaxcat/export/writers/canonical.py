"""jaxcat's own layout of weights: the whole backbone, for `--config.model.weights=FILE` of another run.

A head that a run has trained is not in it: `--config.init_from` of the other run takes it from the workdir.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict

from jaxcat.errors import ConfigError
from jaxcat.export.network import ExportedNetwork
from jaxcat.models.backbone import BACKBONES
from jaxcat.weights.formats import safetensors_file


def write(path: Path, network: ExportedNetwork, *, weights: str) -> None:
    lacking = [stage for stage in BACKBONES[network.backbone].stages if stage not in network.params]
    if lacking:
        raise ConfigError(
            f"--format canonical holds a whole backbone, and this run has none of {', '.join(lacking)}: give another "
            "run the workdir instead, --config.init_from=DIR"
        )
