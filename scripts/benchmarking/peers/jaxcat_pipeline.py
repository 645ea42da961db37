"""jaxcat's pipeline: the image store, the augmentation and the batches on the device."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jaxcat.config import default
from jaxcat.data.augmentation.device import inputs, views
from jaxcat.data.augmentation.table import DEVICE, HOST, Views
from jaxcat.data.batches import batches
from jaxcat.data.digests import digests_of
from jaxcat.data.records import Split
from jaxcat.data.sources import open_data
from jaxcat.data.store import Store, open_stores
from jaxcat.system.compilation import jit
from jaxcat.system.devices import make_mesh


def describe() -> dict[str, str]:
    return {"version": f"jax {jax.__version__}", "device": str(jax.devices()[0])}


def decode(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    """Files → uint8 images of one size, by the store's threads."""
    return _decode(_store(data, size, cache_gb=0.0), batch)


def decode_alone(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    return _decode(_store(data, size, cache_gb=0.0, workers=1), batch)


def _decode(store: Store, batch: int) -> Callable[[int], None]:
    def run(calls: int) -> None:
        for indices in _indices(len(store), batch, calls).reshape(calls, batch):
            store.gather(indices)

    return run


def digest(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    """All that is done with an image whose bottleneck is in the cache: its file is read and hashed."""
    split = _split(data, size)

    def run(calls: int) -> None:
        digests_of(split.take(_indices(len(split), batch, calls)))

    return run


def decode_augment(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    return _batches(_store(data, size, cache_gb=0.0), size, batch)


def augment(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    return _batches(_store(data, size, cache_gb=16.0), size, batch)


def augment_on_host(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    return _batches(_store(data, size, cache_gb=16.0), size, batch, on=HOST)


TASKS = {
    "decode": decode,
    "decode_alone": decode_alone,
    "digest": digest,
    "decode_augment": decode_augment,
    "augment": augment,
    "augment_on_host": augment_on_host,
}


def _store(data: str, size: int, *, cache_gb: float, workers: int | None = None) -> Store:
    splits, sizes = {"train": _split(data, size)}, {"train": size}
    return open_stores(splits, sizes=sizes, mode="squash", cache_gb=cache_gb, workers=workers)["train"]


def _split(data: str, size: int) -> Split:
    config = default()
    config.data.dir, config.data.image_size = data, size
    return open_data(config).splits["train"]


def _indices(records: int, batch: int, calls: int) -> np.ndarray:
    return np.arange(calls * batch) % records


def _batches(store: Store, size: int, batch: int, *, on: str = DEVICE) -> Callable[[int], None]:
    mesh, labels, made = make_mesh(), store.split.labels, jit(views)

    def run(calls: int) -> None:
        indices, ways = _indices(len(store), batch, calls), Views("article", on=on)
        for each in batches(store, labels, indices, batch_size=batch, size=size, mesh=mesh, augment=ways):
            jax.block_until_ready(made(inputs(each)) if on == DEVICE else each)

    return run
