"""jaxcat's own layout of weights: the whole backbone, and the published classification layers if there are any.

A head that a run has trained is not in it: a file of weights is where another run begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict

from jaxcat.export.network import ExportedNetwork
from jaxcat.weights.formats import safetensors_file
