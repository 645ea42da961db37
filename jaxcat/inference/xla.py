"""A classifier's answers, computed by JAX on its devices."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from rich.console import Console

from jaxcat.bottlenecks.cached import CachedSplit
from jaxcat.bottlenecks.engines.names import XLA
from jaxcat.bottlenecks.key import keys_of
from jaxcat.bottlenecks.parts import Parts, parts_of
from jaxcat.bottlenecks.reading import batches_of, evaluated_together
from jaxcat.data.batches import Batches, at_most, batches
from jaxcat.inference.computation import EXPLAINED_TOGETHER, Outputs, Records, computed_by, unit_of
from jaxcat.inference.explanation import block_to_explain
from jaxcat.models.attribution import block_map
from jaxcat.models.network import Network, Tree
from jaxcat.runs.restore import Restored
from jaxcat.system.compilation import PROGRAMS_KEPT, jit
from jaxcat.system.console import progress_of
from jaxcat.system.devices import make_mesh, padded_batch_size, replicated, to_global
from jaxcat.training.queue import InLine
from jaxcat.training.steps import boundary_input, jitted_eval_step


class XLAComputation:
    """The network of a run as compiled programs; see `Computation`.

    Attributes:
        run: the network with its parameters and statistics.
        mesh: of all devices.
    """

    engine: str = XLA
    interpreter: dict[str, str] | None = None

    def __init__(self, run: Restored):
        self.run, self.mesh = run, make_mesh()
        self.features = run.network.features

    def evaluate_batch(self, batch: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """A global batch, as data.batches makes it → (logits (B, outputs), masked sums)."""
        step = jitted_eval_step(self.run.network, self.run.meta.metrics, self.mesh)
        return step(self.run.trained["params"], self.run.trained["stats"], self.run.frozen, batch)

    def _features_of_batch(self, batch: dict[str, Array]) -> tuple[Array, Array]:
        """A global batch → (logits (B, outputs), features (B, features))."""
        step = _feature_step(self.run.network, self.mesh)
        return step(self.run.trained["params"], self.run.trained["stats"], self.run.frozen, batch)

    def outputs(self, pixels: Iterable[np.ndarray], *, batch_size: int, features: bool) -> Iterator[Outputs]:
        """See `Computation.outputs`."""
        for count, batch in self._padded(pixels, batch_size):
            if features:
                logits, seen = self._features_of_batch(batch)
                yield np.asarray(logits)[:count], np.asarray(seen)[:count]
            else:
                yield np.asarray(self.evaluate_batch(batch)[0])[:count], None

    def raw_maps(
        self,
        pixels: Iterable[np.ndarray],
        labels: Iterable[int],
        *,
        block: str = "",
        batch_size: int = EXPLAINED_TOGETHER,
    ) -> Iterator[np.ndarray]:
        """Grad-CAM of each image, float32 (h, w), not negative, not yet divided by its maximum.

        h and w are the sides of the block's output. It is computed in float32, with the head of the run.

        Args:
            pixels: prepared images, uint8 (image_size, image_size, 3).
            labels: the class to explain for each image, read after the pixels of its batch. With two classes, the map
                of class 0 is that of the negative logit.
            block: a block of the backbone; "" is the last one that the head reads.

        Raises:
            ConfigError: no such block, or the head does not depend on it.
        """
        block = block_to_explain(self.run.meta.config.model, block)
        for count, batch in self._padded(pixels, batch_size, labels):
            step = _map_step(self.run.network, block, self.mesh)
            yield from np.asarray(step(self._arrays, batch["image"], batch["label"]))[:count]

    @property
    def _arrays(self) -> Tree:
        """`{"params", "stats"}` of all stages."""
        return {kind: {**self.run.frozen[kind], **self.run.trained[kind]} for kind in ("params", "stats")}

    def _padded(
        self, pixels: Iterable[np.ndarray], batch_size: int, labels: Iterable[int] = itertools.repeat(0)
    ) -> Iterator[tuple[int, dict[str, Array]]]:
        """Yields the number of images in each batch, and the batch on the devices.

        All batches have the same compiled shape. If there is only one, it is padded to the next power of two.
        """
        whole, single, remaining = padded_batch_size(batch_size, self.mesh), True, iter(pixels)
        of_images = iter(labels)
        while rows := list(itertools.islice(remaining, batch_size)):
            enough = padded_batch_size(1 << (len(rows) - 1).bit_length(), self.mesh)
            padded = min(whole, enough) if single else whole
            image = np.zeros((padded, *rows[0].shape), np.uint8)
            image[: len(rows)] = rows
            label = np.zeros(padded, np.int32)
            label[: len(rows)] = list(itertools.islice(of_images, len(rows)))
            batch = {"image": image, "label": label, "mask": np.arange(padded) < len(rows)}
            yield len(rows), to_global(self.mesh, batch)
            single = False

    def logits(
        self,
        store: Records,
        *,
        batch_size: int,
        console: Console,
        features: list[np.ndarray] | None = None,
    ) -> np.ndarray:
        """See `Computation.logits`; `batch_size` is over all processes, and bottlenecks have their own."""
        line = InLine()
        rows: list[Array] = []
        source, batch_size = self._source(store, batch_size)
        with progress_of(unit_of(store), total=len(store), console=console) as advance:
            for batch in source:
                count = min(batch_size, len(store) - batch_size * len(rows))  # the rest is padding
                if features is None:
                    logits, _ = self.evaluate_batch(batch)
                else:
                    logits, seen = self._features_of_batch(batch)
                    features.append(np.asarray(seen)[:count])
                line.add(logits)
                rows.append(logits)
                advance(count)
        return np.concatenate([np.asarray(logits)[:batch_size] for logits in rows])[: len(store)]  # the rest is padding

    def _source(self, store: Records, batch_size: int) -> tuple[Batches, int]:
        """The batches of all records in order, and how many records each has."""
        indices, labels, mesh = np.arange(len(store)), store.split.labels, self.mesh
        if isinstance(store, CachedSplit):
            together = evaluated_together(len(store), row_bytes=store.parts.row_bytes)
            reader = store.reader()
            return (
                batches_of(reader, store.parts, labels=labels, indices=indices, batch_size=together, mesh=mesh),
                together,
            )
        batch_size, size = at_most(len(store), batch_size), self.run.meta.config.data.image_size
        return batches(store, labels, indices, batch_size=batch_size, size=size, mesh=mesh), batch_size

    def parts(self) -> Parts | None:
        """See `Computation.parts`; None if nothing of the network is frozen, or the run keeps float16 rows."""
        run, config = self.run, computed_by(self.run.meta.config, XLA)
        if not run.network.prefix_stages or config.bottleneck.dtype != "float32":
            return None
        keys = keys_of(config, run.network, frozen_digests=run.meta.frozen_digests)
        return parts_of(keys, network=run.network)

    def host_arrays(self, tree: Tree) -> Tree:
        """A tree of arrays on the devices → the same tree of NumPy arrays."""
        return jax.tree.map(np.asarray, tree)


@functools.lru_cache(maxsize=PROGRAMS_KEPT)
def _feature_step(network: Network, mesh: Mesh) -> Callable[..., tuple[Array, Array]]:
    def step(trained: Tree, stats: Tree, frozen: Tree, batch: dict[str, Array]) -> tuple[Array, Array]:
        return network.logits_and_features(trained, stats, boundary_input(network, frozen, batch))

    return jit(step, out_shardings=replicated(mesh))


@functools.lru_cache(maxsize=PROGRAMS_KEPT)
def _map_step(network: Network, block: str, mesh: Mesh) -> Callable[[Tree, Array, Array], Array]:
    precise = network.in_dtype("float32")

    def step(arrays: Tree, images: Array, labels: Array) -> Array:
        return block_map(precise, arrays, images, labels, block=block)

    return jit(step, out_shardings=replicated(mesh))
