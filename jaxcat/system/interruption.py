"""SIGINT and SIGTERM as a request to finish the step, save and exit. A second signal ends the process at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType, TracebackType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcat.system.devices import by_batch, replicated

EVERY = 4  # calls of `stop` between two exchanges with the other processes


class Interruption:
    """A context manager that notes the first SIGINT or SIGTERM, which then does not end the process.

    In a run of several processes, a signal to any of them stops all of them at the same step. At every `EVERY`-th call
    of `stop`, they start an all-reduce (maximum) of the signals received, one number per device, and read the result of
    the one before, which is ready by then. So no process waits, and the run stops at most 2 × `EVERY` calls after the
    signal.

    Attributes:
        received: the number of the signal that has come to this process, or 0.
        status: the last answer of `stop`.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, mesh: Mesh) -> None:
        self.received = self.status = 0
        self._mesh = mesh
        self._looks = 0
        self._asked: deque[jax.Array] = deque()
        self._maximum = jax.jit(jnp.max, out_shardings=replicated(mesh))
        self._before: dict[signal.Signals, Callable | int | None] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python allows signal handlers only here
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stop(self) -> int:
        """Returns 0 to go on, or the exit status to stop with: 128 plus the number of the signal, so 130 or 143.

        Every process of the run must call it after every step or compiled loop of steps; all get the same answer.
        """
        if jax.process_count() == 1:
            agreed = self.received
        else:
            agreed = self._of_any_process() if self._looks % EVERY == 0 else 0
            self._looks += 1
        self.status = agreed and 128 + agreed
        return self.status

    def _of_any_process(self) -> int:
        """The signal that any process had received at the previous exchange, or 0; starts the next exchange."""
        answer = int(self._asked.popleft()) if self._asked else 0
        mine = np.full(len(self._mesh.local_devices), self.received, np.int32)
        self._asked.append(self._maximum(jax.make_array_from_process_local_data(by_batch(self._mesh), mine)))
        return answer

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for each in self.SIGNALS:
            # A second signal ends the process, with the same status; but not a notebook or a Python prompt.
            signal.signal(each, self._before[each] if hasattr(sys, "ps1") else signal.SIG_DFL)
