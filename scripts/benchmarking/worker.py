"""A process for each peer: backends, thread pools and memory do not meet, and one that dies takes nothing with it.

A worker sleeps between questions, so that peers can be timed in turn, ABABAB, on cores that are otherwise idle.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

# Longest that a task may take to compile and run once; a full step of 256 images at 299 px takes minutes on 2 cores.
PATIENCE_SECONDS = 600.0

Run = Callable[[int], Any]


class PeerError(Exception):
    """A peer is absent, or failed at a task; the message is the reason."""


class Worker:
    """A process that has imported one module of `benchmarking.peers`, started at the first question.

    Args:
        module: of `benchmarking.peers`.
        environment: variables set before anything is imported.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None):
        self._module, self._environment = module, dict(environment or {})
        self._process: Any = None
        self._connection: Any = None

    def ask(self, question: str, **arguments: Any) -> Any:
        """The answer of the function `question` of `_Peer`.

        Raises:
            PeerError: the function raised, or the process died (out of memory, most often) or took too long.
        """
        if self._process is None:
            self._start()
        try:
            self._connection.send((question, arguments))
            if not self._connection.poll(PATIENCE_SECONDS):
                raise PeerError(f"no answer in {PATIENCE_SECONDS:.0f} s")
            done, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            status = self._process.exitcode
            self.close()
            raise PeerError(f"its process died with status {status}") from None
        except PeerError:
            self.close()
            raise
        if not done:
            raise PeerError(answer)
        return answer

    def close(self) -> None:
        """End the process; the next question starts another."""
        if self._process is None:
            return
        self._connection.close()
        self._process.terminate()
        self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._module, self._environment, time.time()), daemon=True
        )
        self._process.start()
        theirs.close()


class _Peer:
    """What a worker can be asked; lives in the worker's process."""

    def __init__(self, module: str, started: float):
        self._module: Any = importlib.import_module(f"benchmarking.peers.{module}")
        self._started = started
        self._runs: dict[str, tuple[Run, int]] = {}

    def describe(self) -> dict[str, str]:
        return self._module.describe()

    def tasks(self) -> list[str]:
        return list(self._module.TASKS)

    def call(self, function: str, arguments: dict) -> Any:
        return getattr(self._module, function)(**arguments)

    def prepare(self, name: str, task: str, case: dict, seconds: float) -> None:
        """Compile and warm up a task, and choose how many calls fill `seconds`."""
        run = self._module.TASKS[task](**case)
        run(1)
        taken = _timed(run, 1)
        self._runs[name] = run, max(1, math.ceil(seconds / taken))

    def time(self, name: str) -> float:
        """Seconds a call, over as many calls as `prepare` chose."""
        run, calls = self._runs[name]
        return _timed(run, calls) / calls

    def first(self, task: str, case: dict) -> float:
        """Seconds from the request for this process to the end of the first call of a task."""
        self._module.TASKS[task](**case)(1)
        return time.time() - self._started

    def forget(self) -> None:
        self._runs.clear()
        gc.collect()

    def memory(self) -> dict[str, int | None]:
        """Peak bytes of this process on the host, and on the device where the peer can say."""
        unit = 1 if sys.platform == "darwin" else 1024
        device = getattr(self._module, "device_memory", lambda: None)()
        return {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "device": device}


def _timed(run: Run, calls: int) -> float:
    began = time.perf_counter()
    run(calls)
    return time.perf_counter() - began


def _serve(connection: Any, module: str, environment: dict[str, str], started: float) -> None:
    os.environ.update(environment)
    peer: _Peer | None = None
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            question, arguments = connection.recv()
            try:
                peer = peer or _Peer(module, started)
                answer = True, getattr(peer, question)(**arguments)
            except Exception as error:
                lines = str(error).strip().splitlines() or [""]
                answer = False, f"{type(error).__name__}: {lines[0][:160]}"
            connection.send(answer)
