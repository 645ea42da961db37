"""Which engine computes the answers of a classifier: the one that is asked for, that of the run, or XLA."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxcat.bottlenecks.cached import CachedSplit, find
from jaxcat.bottlenecks.engines.names import AUTO, ENGINES, LEAST_RECORDS, XLA, unsupported
from jaxcat.bottlenecks.parts import Parts
from jaxcat.data.records import Split
from jaxcat.errors import CacheError, CheckpointError, ConfigError, EngineError
from jaxcat.inference.computation import Computation, computed_by
from jaxcat.inference.litert import LiteRTComputation
from jaxcat.runs.head_file import Head
from jaxcat.runs.meta import Meta
from jaxcat.system.console import Console
from jaxcat.system.files import NoHomeError
from jaxcat.system.processes import process_count
from jaxcat.wording import not_one_of

if TYPE_CHECKING:
    from jaxcat.inference.xla import XLAComputation
    from jaxcat.models.network import Tree

logger = logging.getLogger(__name__)


class EngineChoice:
    """The engine of one classifier. It is chosen once, when the first images are known, and then kept.

    Attributes:
        wanted: the engine asked for or, with "auto", that of the run, if it can compute this run here.
    """

    def __init__(self, meta: Meta, *, asked: str, head: Callable[[], Head | None], xla: Callable[[], XLAComputation]):
        """Reads nothing.

        Args:
            meta: of the checkpoint.
            asked: the name of an engine, or "auto".
            head: gives the arrays of the head from a file of their own, or None; it may raise CheckpointError.
            xla: gives the computation by XLA, which imports JAX and restores the network.

        Raises:
            ConfigError: no such engine, or one that cannot compute this run.
        """
        self._meta, self._asked, self._head_in_file, self._xla = meta, asked, head, xla
        self._computation: Computation | None = None
        if problem := not_one_of(asked, (AUTO, *ENGINES)):
            raise ConfigError(f"--engine {asked}: {problem}")
        self.wanted = meta.config.bottleneck.engine if asked == AUTO else asked
        if self.wanted == XLA:
            return
        reason = unsupported(computed_by(meta.config, self.wanted))
        if not reason and process_count() > 1:
            reason = "it computes in one process, and this command has several"
        if reason and asked != AUTO:
            raise ConfigError(f"--engine {asked}: {reason}; use --engine {XLA}")
        if reason:
            logger.warning("engine: xla, not the run's %s: %s", self.wanted, reason)
            self.wanted = XLA

    def prepare(self) -> None:
        """Reads the files that will be needed: damage is reported now, and they are not needed later.

        For xla these are all files, else that of the head. Raises CheckpointError.
        """
        if self.wanted == XLA:
            self.computation()
        else:
            self._head  # noqa: B018

    def computation(self, images: int = 0, *, console: Console | None = None) -> Computation:
        """What computes the answers.

        It is the engine wanted. With "auto", one other than xla is taken only if its converted prefix is in the cache,
        or if there are enough images to convert it for; else xla, and `console` says why.

        Args:
            images: how many are asked for, as far as is known.
            console: also says that the prefix is being converted.

        Raises:
            EngineError, CacheError: the engine asked for cannot be used.
        """
        if self._computation is None:
            self._computation = self._chosen(images, console or Console(quiet=True))
        return self._computation

    def _chosen(self, images: int, console: Console) -> Computation:
        if self.wanted == XLA:
            return self._xla()
        try:
            if self._litert.open(convert=self._asked != AUTO or images >= LEAST_RECORDS, console=console):
                return self._litert
            reason = (
                f"its converted prefix is not in the cache, and converting pays from {LEAST_RECORDS} images on; "
                f"--engine {self.wanted} converts it now"
            )
        except (EngineError, CacheError, NoHomeError) as error:
            if self._asked != AUTO:
                raise type(error)(f"--engine {self._asked}: {error}; or use --engine {XLA}") from error
            reason = str(error)
        console.print(f"engine: xla, not the run's {self.wanted}: {reason}")
        return self._xla()

    def cached(self, split: Split, *, console: Console) -> CachedSplit | None:
        """The bottlenecks of all records of a split, if the cache has them as float32; see `bottlenecks.cached.find`.

        If the cache has those of the engine wanted, that engine is chosen, without a converted prefix. If not,
        `computation` chooses for all these images.
        """
        if self._computation is None and self.wanted != XLA:
            if (found := find(split, self._litert_parts, console=console)) is not None:
                self._computation = self._litert
                return found
            if self.computation(len(split), console=console).engine == self.wanted:
                return None
        return find(split, self.computation(len(split), console=console).parts, console=console)

    def _litert_parts(self) -> Parts | None:
        try:
            return self._litert.parts()
        except EngineError:  # no interpreter
            return None

    @functools.cached_property
    def _litert(self) -> LiteRTComputation:
        return LiteRTComputation(self._meta, self.wanted, head=self._head, frozen=self._frozen)

    def _frozen(self) -> Tree:
        xla = self._xla()
        return xla.host_arrays(xla.run.frozen)

    @functools.cached_property
    def _head(self) -> Head:
        """The arrays of the head: from their file or, if that cannot be used, from the checkpoint."""
        try:
            found = self._head_in_file()
        except CheckpointError as error:
            logger.warning("%s", error)
            found = None
        if found is not None:
            return found
        xla = self._xla()
        return xla.host_arrays(xla.run.trained["params"])
