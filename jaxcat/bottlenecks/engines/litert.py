"""The LiteRT interpreter: finds it, and runs images through a converted prefix. Imports neither JAX nor TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcat.bottlenecks.engines.converted import Converted


class Found(NamedTuple):
    """An interpreter that is installed.

    Attributes:
        package, version: of the distribution that it comes from.
        Interpreter: its class.
    """

    package: str
    version: str
    Interpreter: Any


def interpreter() -> Found | None:
    """The interpreter of ai-edge-litert, else that of TensorFlow, else None."""
    raise NotImplementedError


def required_interpreter() -> Found:
    """The same; raises EngineError with the command that installs one, if there is none."""
    raise NotImplementedError


class LiteRTPrefix:
    """A converted prefix that computes bottlenecks, image by image."""

    def __init__(self, converted: Converted, *, threads: int | None = None):
        """Takes what `converted.find` or `converted.make` gave.

        Args:
            threads: how many cores to use; by default all. Results do not depend on it.

        Raises:
            EngineError: no interpreter is installed, or it cannot open the file.
        """
        raise NotImplementedError

    def rows(
        self, images: Iterable[np.ndarray], parts: Sequence[int] | None = None
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields for each image, in their order, the features float32 (width,) of each part.

        Side by side, those of all parts are the pooled features of the network.

        Args:
            images: uint8 (S, S, 3) each. It is read only a few images ahead of what is computed.
            parts: numbers of the wanted parts of the configuration that the file was found for; by default all.
        """
        raise NotImplementedError
