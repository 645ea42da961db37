"""Networks of Keras Applications, which take Keras longer to build than to compute with."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import keras
import numpy as np
import pytest


@contextlib.contextmanager
def built_once(*names: str) -> Iterator[None]:
    """Asked again for one of these networks, Keras gives the same one, with zeros in place of the numbers it got."""

    def emptied(build, **options):
        network = build(**options)
        network.set_weights([np.zeros(weight.shape, np.float32) for weight in network.weights])
        return network

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            build = functools.cache(getattr(keras.applications, name))
            patch.setattr(keras.applications, name, functools.partial(emptied, build))
        yield
