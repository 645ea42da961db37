"""Bottlenecks by LiteRT in a run: converts the prefix beside the decoding of images, then runs them through it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.bottlenecks.compute import Output, Request
from jaxcat.bottlenecks.engines.converted import Making
from jaxcat.bottlenecks.engines.litert import LiteRTPrefix
from jaxcat.bottlenecks.engines.names import XLA
from jaxcat.data.batches import batches
from jaxcat.errors import CacheError, EngineError
from jaxcat.models.network import Network, Tree

TOGETHER = 8  # images whose rows are handed on at a time; between two of them the run can be interrupted
FETCHED = 32  # images decoded at a time, in the background


class LiteRT:
    """The engines `litert_float32` and `litert_int8`; see `compute.Engine`."""

    asks_often = True

    def __init__(
        self,
        config: ConfigDict,
        *,
        network: Network,
        frozen: Tree,
        frozen_digests: Mapping[str, str],
        mesh: Mesh,
    ):
        self._config, self._mesh = config, mesh
        self._conventions, self._frozen, self._digests = network.conventions, frozen, frozen_digests
        self._making: Making | None = None
        self._prefix: LiteRTPrefix | None = None

    def begin(self) -> None:
        if self._making is None:
            self._making = Making(self._config, self._conventions, self._digests, arrays=self._arrays)

    def _arrays(self) -> Tree:
        return jax.device_get(self._frozen)

    def ready(self, console: Console, *, stop: Callable[[], int]) -> int:
        self.begin()
        assert self._making is not None
        if status := self._making.wait(console, stop=stop):
            return status
        try:
            self._prefix = LiteRTPrefix(self._making.result())
        except (CacheError, EngineError) as error:
            flag = "--config.bottleneck.engine"
            raise type(error)(
                f"{flag}={self._config.bottleneck.engine}: {error}; or compute by JAX: {flag}={XLA}"
            ) from error
        return 0

    def close(self) -> None:
        if self._making is not None:
            self._making.close()
        self._making = self._prefix = None

    def outputs(self, request: Request, *, report: Callable[[int], None]) -> Iterator[Output]:
        assert self._prefix is not None
        rows = self._prefix.rows(self._images(request), tuple(request.lacking))
        while together := list(itertools.islice(rows, TOGETHER)):
            report(len(together))
            yield tuple(np.stack(values) for values in zip(*together, strict=True))

    def _images(self, request: Request) -> Iterator[np.ndarray]:
        """The images of a request in order, uint8 (S, S, 3) each."""
        return self._augmented(request) if request.augment.changed else _stored(request)

    def _augmented(self, request: Request) -> Iterator[np.ndarray]:
        left = len(request.records)
        for batch in batches(
            request.store,
            request.store.split.labels,
            request.records,
            batch_size=FETCHED,
            size=self._config.data.image_size,
            mesh=self._mesh,
            augment=request.augment,
            seed=self._config.seed,
            view=request.view,
        ):
            yield from np.asarray(batch["image"])[: min(FETCHED, left)]
            left -= FETCHED


def _stored(request: Request) -> Iterator[np.ndarray]:
    """Images without views. They are read without TensorFlow, whose import takes seconds."""
    starts = range(0, len(request.records), FETCHED)
    with ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
        ahead = [pool.submit(request.store.gather, request.records[:FETCHED])] if starts else []
        for start in starts:
            images = ahead.pop().result()
            following = request.records[start + FETCHED : start + 2 * FETCHED]
            ahead.append(pool.submit(request.store.gather, following))
            yield from images
