"""Where arrays live: one mesh axis over every device, two placements, and how several processes find each other.

Everything that changes with the batch is split over the axis ``data``; everything else is on every device. A batch that
does not divide by the number of devices is padded by the pipeline and masked, so any batch size runs on any mesh.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcat.errors import ConfigError

# Set by the launcher in every process it starts: srun and mpirun give the number of processes, TPU hosts a comma list.
LAUNCHER_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
# Seconds without a sign of life after which a process counts as lost, and the others end too.
LOST_AFTER = 20

LAUNCHER_HOSTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


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


def values_of_processes(value: int) -> list[int]:
    """The value that each process of the run gives here, by process number; all of them must call it."""
    if jax.process_count() == 1:
        return [int(value)]
    return multihost_utils.process_allgather(np.array(int(value), np.int32)).tolist()


def lost_process(error: BaseException) -> str:
    """What JAX says of another process of this run that cannot be reached, if that is behind `error`; else ""."""
    link: BaseException | None = error
    while link is not None and jax.process_count() > 1:
        if isinstance(link, jax.errors.JaxRuntimeError):
            return str(link).strip().partition("\n")[0]
        link = link.__cause__ or link.__context__
    return ""


def initialize_distributed(
    coordinator: str = "", *, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins this process to the others of the run; does nothing for a run of one process. Call before any other JAX.

    Args:
        coordinator: ``HOST:PORT`` of process 0, with both numbers; ``auto`` for whatever cluster JAX detects; "" to
            ask JAX only where a launcher's environment variables say that it started several processes.
        num_processes: how many processes there are.
        process_id: which one this is, from 0.

    Raises:
        ConfigError: only some of the three were given, or the other processes could not be joined.
    """
    if jax.distributed.is_initialized():
        return
    given = f"--coordinator={coordinator} --num-processes={num_processes} --process-id={process_id}"
    named = coordinator not in ("", "auto")
    if len({named, num_processes is not None, process_id is not None}) > 1:
        raise ConfigError(f"{given}: give --coordinator=HOST:PORT, --num-processes and --process-id, or none of them")
    if num_processes == 1 or not (coordinator or _several_launched()):
        return
    try:
        if named:
            jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=LOST_AFTER)
        else:
            jax.distributed.initialize(heartbeat_timeout_seconds=LOST_AFTER)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot join the other processes of this run ({given}): {error}; "
            "give --coordinator=HOST:PORT, --num-processes and --process-id to every process"
        ) from error


def _several_launched() -> bool:
    counts = [int(os.environ.get(name) or 1) for name in LAUNCHER_COUNTS]
    counts += [len(os.environ.get(name, "").split(",")) for name in LAUNCHER_HOSTS]
    return max(counts) > 1
