"""A classifier's answers without JAX: pooled features from the LiteRT interpreter, and the head in NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Console

from jaxcat.bottlenecks.cached import CachedSplit
from jaxcat.bottlenecks.engines import converted
from jaxcat.bottlenecks.engines.litert import LiteRTPrefix, required_interpreter
from jaxcat.bottlenecks.key import litert_keys
from jaxcat.bottlenecks.parts import Parts, pooled
from jaxcat.data.store import Store
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.inference.averaged import StoreOfViews
from jaxcat.inference.computation import Outputs, Records, computed_by, unit_of
from jaxcat.models.plan import Dense, plan_of
from jaxcat.runs.head_file import Head
from jaxcat.runs.meta import Meta
from jaxcat.system.console import progress_of

ROWS_TOGETHER = 256  # bottlenecks whose logits are computed at once


class HeadInNumPy:
    """The layers after the pooled features, computed in float64.

    So the last bits of a row's logits, which are rounded to float32, do not depend on the rows computed beside it.
    """

    def __init__(self, layers: Iterable[Dense], arrays: Head, *, features: int):
        """Takes the dense layers of a plan and their arrays. Raises CheckpointError if these do not fit."""
        self._layers, width = [], features
        for layer in layers:
            kernel, bias = arrays[layer.name]["kernel"], arrays[layer.name]["bias"]
            if kernel.shape != (width, *layer.shape) or bias.shape != layer.shape:
                raise CheckpointError(f"the head's {layer.name} is {kernel.shape}, and not {(width, *layer.shape)}")
            self._layers.append((kernel.astype(np.float64), bias.astype(np.float64), layer.relu))
            (width,) = layer.shape

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Features (B, features) → logits float32 (B, outputs)."""
        x = features.astype(np.float64)
        for kernel, bias, relu in self._layers:
            x = x @ kernel + bias
            x = np.maximum(x, 0) if relu else x
        return x.astype(np.float32)


class LiteRTComputation:
    """The converted prefix of a run and its head; see `Computation`. Raises EngineError if there is no interpreter."""

    def __init__(self, meta: Meta, engine: str, *, head: Head, frozen: Callable[[], Mapping[str, Any]]):
        """Opens no converted prefix: bottlenecks in the cache need none.

        Args:
            meta: of the checkpoint.
            engine: a name in the table of engines, other than xla.
            head: the arrays of the head.
            frozen: gives `{"params", "stats"}` of the prefix, NumPy; only a conversion needs them.
        """
        found = required_interpreter()
        self.engine: str = engine
        self.interpreter: dict[str, str] | None = {"name": found.package, "version": found.version}
        self._meta, self._config, self._frozen = meta, computed_by(meta.config, engine), frozen
        model, size = self._config.model, self._config.data.image_size
        try:
            plan = plan_of(model, image_size=size, conventions=meta.conventions, classes=len(meta.classes))
        except ConfigError as error:
            raise CheckpointError(f"step {meta.step} describes an impossible network: {error}") from error
        self._parts, self.features = plan.parts, plan.features
        layers = [layer for layer in plan.layers if isinstance(layer, Dense)]
        self._head = HeadInNumPy(layers, head, features=plan.features)
        self._prefix: LiteRTPrefix | None = None

    def open(self, *, convert: bool, console: Console) -> bool:
        """Opens the converted prefix; whether there is one.

        Args:
            convert: whether to convert it if the cache lacks it.
            console: where is said that it is being converted.

        Raises:
            EngineError: it cannot be converted or opened.
            CacheError: the cache cannot be written.
        """
        run = self._config, self._meta.conventions, self._meta.frozen_digests
        file = converted.make(*run, arrays=self._frozen, console=console) if convert else converted.find(*run)
        if file is not None:
            self._prefix = LiteRTPrefix(file)
        return file is not None

    def outputs(self, pixels: Iterable[np.ndarray], *, batch_size: int, features: bool) -> Iterator[Outputs]:
        """See `Computation.outputs`."""
        if self._prefix is None:  # the engine was chosen for bottlenecks in the cache
            self.open(convert=True, console=Console(quiet=True))
        assert self._prefix is not None
        rows = (np.concatenate(parts) for parts in self._prefix.rows(pixels))
        while batch := list(itertools.islice(rows, batch_size)):
            seen = np.stack(batch)
            yield self._head.logits(seen), seen if features else None

    def logits(
        self,
        store: Records,
        *,
        batch_size: int,
        console: Console,
        features: list[np.ndarray] | None = None,
    ) -> np.ndarray:
        """See `Computation.logits`."""
        rows = self._of_rows(store) if isinstance(store, CachedSplit) else self._of_images(store, batch_size)
        found = []
        with progress_of(unit_of(store), total=len(store), console=console) as advance:
            for logits, seen in rows:
                found.append(logits)
                if features is not None:
                    features.append(seen)
                advance(len(logits))
        return np.concatenate(found)

    def _of_rows(self, store: CachedSplit) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        read = store.reader()
        for start in range(0, len(store), ROWS_TOGETHER):
            numbers = np.arange(start, min(start + ROWS_TOGETHER, len(store)))
            features = np.empty((len(numbers), *store.parts.shape), store.parts.dtype)
            read(numbers, features)
            yield self._head.logits(features), features

    def _of_images(self, store: Store | StoreOfViews, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        batches = (np.arange(start, min(start + batch_size, len(store))) for start in range(0, len(store), batch_size))
        images = (image for numbers in batches for image in store.gather(numbers))
        for logits, seen in self.outputs(images, batch_size=batch_size, features=True):
            assert seen is not None
            yield logits, seen

    def parts(self) -> Parts | None:
        """See `Computation.parts`; None if the run keeps float16 rows."""
        if self._config.bottleneck.dtype != "float32":
            return None
        return pooled(litert_keys(self._config, self._meta.conventions, self._meta.frozen_digests), self._parts)
