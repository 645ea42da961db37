"""Where arrays live: one mesh axis over every device, and two placements.

Everything that changes with the batch is split over the axis ``data``; everything else is on every device. A batch that
does not divide by the number of devices is padded by the pipeline and masked, so any batch size runs on any mesh.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """A 1-D mesh, axis ``data``, over all devices of all processes.

    Devices are in order of process, so that process p of n owns the p-th n-th of every batch; ``jax.make_mesh`` may
    order a TPU's devices by their wiring instead.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The placement of parameters and metrics: whole, on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """The placement of batches: the first dimension split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def padded_batch_size(batch_size: int, mesh: Mesh) -> int:
    """The smallest multiple of the mesh's device count that holds `batch_size` rows."""
    return -(-batch_size // mesh.size) * mesh.size


def to_global(mesh: Mesh, local_batch: Mapping[str, np.ndarray], *, stacked: bool = False) -> dict[str, jax.Array]:
    """This process's rows of a batch → the global batch, its rows split over the devices.

    Args:
        mesh: from `make_mesh`.
        local_batch: arrays (P / number of processes, ...), the same share of the P padded rows in every process.
        stacked: whether the arrays are several batches, (K, P / number of processes, ...).

    Returns:
        The same names with arrays (P, ...) or (K, P, ...); the transfer goes on while the caller does other work.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, "data")) if stacked else by_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in local_batch.items()}


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to fill and hand to `to_global`: XLA takes memory of a CPU as it is where its address divides by 64,
    NumPy's mostly divide by 16 only, and are copied."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def place_replicated(mesh: Mesh, tree: Any) -> Any:
    """A tree of arrays, equal in every process → the same tree on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))
