"""Placement of arrays: a mesh with one axis over all devices, and two ways to place an array on it.

Everything that changes with the batch is split over the axis ``data``; everything else is on every device. If the size
of a batch is no multiple of the number of devices, the batch is padded and masked, so any size works on any mesh.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcat.errors import ConfigError, one_line
from jaxcat.system.processes import values_of_processes


def make_mesh() -> Mesh:
    """A 1-D mesh, axis ``data``, over all devices of all processes.

    Devices are in order of process, so that process p of n has the p-th of n parts of every batch. ``jax.make_mesh``
    may order a TPU's devices by their wiring instead.

    Raises:
        ConfigError: the devices that JAX_PLATFORMS asks for are not there, or JAX cannot use those that are.
    """
    try:
        found = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second if the platform's plugin is not installed
        asked = jax.config.jax_platforms  # type: ignore[attr-defined]
        where = f"JAX_PLATFORMS={asked}" if asked else "JAX"
        reason = one_line(error) if str(error) else "JAX finds no such device"
        raise ConfigError(
            f"{where}: {reason}. Set JAX_PLATFORMS=cpu to run on the CPU, or install what the device needs, for "
            'example pip install "jax[cuda13]"'
        ) from error
    devices = sorted(found, key=lambda device: (device.process_index, device.id))
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
        local_batch: arrays (P / number of processes, ...): this process's part of the P rows, padding included.
        stacked: whether the arrays are several batches, (K, P / number of processes, ...).

    Returns:
        The same names with arrays (P, ...) or (K, P, ...); the transfer is asynchronous.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, "data")) if stacked else by_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in local_batch.items()}


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to fill for `to_global`, at an address that is a multiple of 64: on a CPU, XLA uses it without a copy.

    NumPy aligns most arrays to 16 bytes only, and XLA copies these.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def place_replicated(mesh: Mesh, tree: Any) -> Any:
    """A tree of arrays, equal in every process → the same tree on every device of the mesh.

    Raises:
        ConfigError: the arrays are not equal in every process.
    """
    sharding = replicated(mesh)
    if not mesh.is_multi_process:
        return jax.device_put(tree, sharding)
    # `device_put` would send every array from every process to all others, each shape by a program of its own
    tree = jax.tree.map(np.asarray, tree)
    if len(set(values_of_processes(_checksum(tree) >> 1))) > 1:
        raise ConfigError(
            "the processes of this run do not begin with the same numbers: every process must get the same settings, "
            "and --config.model.weights and --config.init_from must show every host the same files"
        )
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda _: leaf), tree)


def _checksum(tree: Any) -> int:
    """32 bits that depend on every byte of a tree of NumPy arrays."""
    checksum = 0
    for leaf in jax.tree.leaves(tree):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, checksum)
    return checksum
