"""Prefixes converted for LiteRT, in the cache: found by what shapes them, made if missing, and checked before use.

    CACHE/converted/KEY/key.json         everything that shapes the file, what it gives, and its SHA-256; written last
    CACHE/converted/KEY/prefix.tflite    the file

Nothing is ever read from a workdir: the interpreter does not withstand a file that was made to harm it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.models.preprocessing import Conventions


class Converted(NamedTuple):
    """A converted prefix, read and checked; what `LiteRTPrefix` takes.

    Attributes:
        path: the file.
        content: its bytes.
        outputs: the name in the file of each part of the configuration that it was found for. The file may have more.
    """

    path: Path
    content: bytes
    outputs: tuple[str, ...]


def find(config: ConfigDict, conventions: Conventions, frozen_digests: Mapping[str, str]) -> Converted | None:
    """Looks in the cache for a converted prefix that gives all parts of a run; it may be one of a run with more blocks.

    Args:
        config: the complete config of the run; `bottleneck.engine` says how it is converted.
        conventions: those of the run's weights.
        frozen_digests: of its frozen arrays, from its meta.

    Returns:
        The file, read and checked; None if there is none, no cache, or no TensorFlow to have made it.
    """
    raise NotImplementedError


def make(
    config: ConfigDict,
    conventions: Conventions,
    frozen_digests: Mapping[str, str],
    *,
    arrays: Callable[[], Mapping[str, Any]],
    console: Console,
) -> Converted:
    """What `find` gives or, if that is None, converts the prefix in another process and keeps it in the cache.

    Args:
        config, conventions, frozen_digests: see `find`.
        arrays: called only to convert; gives `{"params", "stats"}` of the prefix as NumPy arrays.
        console: where is said that the prefix is being converted.

    Raises:
        EngineError: the conversion fails; it says what to do.
        CacheError: the cache cannot be written.
    """
    raise NotImplementedError
