"""Bottlenecks by JAX: batches of images through the frozen prefix, on the devices of the mesh."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.bottlenecks.compute import Output, Request
from jaxcat.data.augmentation.device import inputs, views
from jaxcat.data.batches import batches
from jaxcat.models.network import Network, Tree
from jaxcat.system.compilation import PROGRAMS_KEPT, jit
from jaxcat.system.devices import replicated
from jaxcat.wording import counted

logger = logging.getLogger(__name__)

# Images in a batch for each device; larger batches are no faster on a CPU.
IMAGES_PER_DEVICE = {"cpu": 32}
IMAGES_PER_ACCELERATOR = 256

# Takes "image" uint8 (P, S, S, 3) and what makes views of them, split over the mesh; gives (P, …) for each part, the
# same in every process.
Prefix = Callable[[Mapping[str, Array]], tuple[Array, ...]]


class XLA:
    """The engine `xla`; see `compute.Engine`. It is ready at once."""

    asks_often = False  # a look at a signal is a step that all processes of a run do together

    def __init__(self, config: ConfigDict, *, network: Network, frozen: Tree, mesh: Mesh):
        self._size, self._seed, self._mesh = config.data.image_size, config.seed, mesh
        self._network, self._frozen = network, frozen

    def begin(self) -> None:
        pass

    def ready(self, console: Console, *, stop: Callable[[], int]) -> int:
        return 0

    def close(self) -> None:
        pass

    def outputs(self, request: Request, *, report: Callable[[int], None]) -> Iterator[Output]:
        """Yields the prefix's output batch by batch; the devices compute one batch ahead.

        If the devices have no memory for a batch, it is tried again at half the size, but only in a run of one process.
        """
        prefix = functools.partial(_compiled(self._network, tuple(request.lacking), self._mesh), self._frozen)
        per_device, done = IMAGES_PER_DEVICE.get(jax.default_backend(), IMAGES_PER_ACCELERATOR), 0
        while done < len(request.records):
            left = request._replace(records=request.records[done:])
            try:
                for output in self._pass(left, prefix, batch_size=per_device * self._mesh.size):
                    done += len(output[0])
                    report(len(output[0]))
                    yield output
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or per_device == 1 or jax.process_count() > 1:
                    raise
                per_device //= 2
                logger.warning("out of memory on the device: going on with %s at a time", counted(per_device, "image"))

    def _pass(self, request: Request, prefix: Prefix, *, batch_size: int) -> Iterator[Output]:
        """Yields the same as `outputs`, all with one batch size."""
        images = batches(
            request.store,
            request.store.split.labels,
            request.records,
            batch_size=batch_size,
            size=self._size,
            mesh=self._mesh,
            augment=request.augment,
            seed=self._seed,
            view=request.view,
        )
        left, ahead = len(request.records), None
        for batch in itertools.chain(images, [None]):
            following = None if batch is None else prefix(inputs(batch))
            if ahead is not None:
                count = min(batch_size, left)
                yield tuple(np.asarray(values)[:count] for values in ahead)
                left -= count
            ahead = following


@functools.lru_cache(maxsize=PROGRAMS_KEPT)
def _compiled(network: Network, parts: tuple[int, ...], mesh: Mesh) -> Callable[..., tuple[Array, ...]]:
    """The function that computes these parts of a batch of images."""

    def compute(frozen: Tree, batch: Mapping[str, Array]) -> tuple[Array, ...]:
        return network.prefix_parts(frozen, views(batch), [network.bottleneck.parts[part] for part in parts])

    return jit(compute, out_shardings=replicated(mesh))
