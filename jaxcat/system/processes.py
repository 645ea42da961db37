"""The processes of one run: how they find each other, agree on a value, and wait for each other.

Only JAX joins processes, so a process that has not imported it is alone. This module imports it only to join them.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from jaxcat.errors import ConfigError

# Set by the launcher in each process: srun and mpirun set a number of processes, TPU hosts a list of hosts with commas.
LAUNCHER_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
LAUNCHER_HOSTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")

SUMMED_TOGETHER = 2**22  # numbers of each process
LOST_AFTER = 20  # seconds without a heartbeat after which a process counts as lost and the others end too


def process_count() -> int:
    """How many processes the run has."""
    jax = sys.modules.get("jax")
    return jax.process_count() if jax else 1


def process_index() -> int:
    """The number of this process, from 0."""
    jax = sys.modules.get("jax")
    return jax.process_index() if jax else 0


def values_of_processes(value: int) -> list[int]:
    """The values that the processes of the run pass here, by process number; every process must call it."""
    if process_count() == 1:
        return [int(value)]
    return _gathered(np.array(int(value), np.int32)).tolist()


def _gathered(array: np.ndarray) -> np.ndarray:
    """The arrays of one shape that the processes pass here, along a new first dimension."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array)


def sum_over_processes(array: np.ndarray) -> np.ndarray:
    """The sum of the float64 arrays of one shape that the processes of the run pass here, the same bits in all of them.

    Every process must call it. The arrays are sent as bytes, because JAX would round them to float32, and in pieces,
    because every process receives the arrays of all.
    """
    if process_count() == 1:
        return array
    flat = np.ascontiguousarray(array, np.float64).reshape(-1)
    total = np.empty_like(flat)
    for start in range(0, len(flat), SUMMED_TOGETHER):
        piece = flat[start : start + SUMMED_TOGETHER]
        found = _gathered(piece.view(np.uint8))
        total[start : start + len(piece)] = np.ascontiguousarray(found).view(np.float64).sum(axis=0)
    return total.reshape(array.shape)


def barrier() -> None:
    """Returns when every process of the run has called it."""
    values_of_processes(True)


def lost_process(error: BaseException) -> str:
    """JAX's message that another process of this run cannot be reached, if that caused `error`; else ""."""
    link: BaseException | None = error
    jax: Any = sys.modules.get("jax")
    while link is not None and process_count() > 1:
        if isinstance(link, jax.errors.JaxRuntimeError):
            return str(link).strip().partition("\n")[0]
        link = link.__cause__ or link.__context__
    return ""


def initialize_distributed(
    coordinator: str = "", *, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins this process to the others of the run, if there are any. Must be called before any other use of JAX.

    Args:
        coordinator: ``HOST:PORT`` of process 0, with both numbers; ``auto`` to let JAX detect the cluster; "" to do so
            only if a launcher's environment variables say that it started several processes.
        num_processes: how many processes there are.
        process_id: which one this is, from 0.

    Raises:
        ConfigError: only some of the three were given, or the other processes could not be joined.
    """
    if _joined():
        return
    given = f"--coordinator={coordinator} --num-processes={num_processes} --process-id={process_id}"
    named = coordinator not in ("", "auto")
    if len({named, num_processes is not None, process_id is not None}) > 1:
        raise ConfigError(f"{given}: give --coordinator=HOST:PORT, --num-processes and --process-id, or none of them")
    if num_processes == 1 or not (coordinator or _several_launched()):
        return
    import jax

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


def _joined() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _several_launched() -> bool:
    counts = [int(os.environ.get(name) or 1) for name in LAUNCHER_COUNTS]
    counts += [len(os.environ.get(name, "").split(",")) for name in LAUNCHER_HOSTS]
    return max(counts) > 1
