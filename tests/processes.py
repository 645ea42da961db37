"""Several processes of one command on this machine, each with CPU devices of its own.

They are forked from one that has imported TensorFlow, JAX and jaxcat: importing takes longer than what most tests do.
"""

from __future__ import annotations

import atexit
import functools
import io
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

import pytest

from jaxcat.system.processes import LOST_AFTER

REPOSITORY = Path(__file__).resolve().parent.parent


@functools.cache
def context() -> BaseContext:
    found = multiprocessing.get_context("forkserver")
    modules = ["tensorflow", "matplotlib.figure", "jaxcat.training.loop", "jaxcat.inference.evaluation"]
    found.set_forkserver_preload(modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_USE_LEGACY_KERAS", "1")  # as `jaxcat.system.tensorflow_import` imports it
        forkserver.ensure_running()
    return found


def run(
    program: Sequence[str],
    arguments: Sequence[str],
    *,
    devices: int,
    environment: dict[str, str],
    log: Path,
    lost_after: int,
    content: bytes = b"",
):
    """Does what `python PROGRAM… ARGUMENTS…` would with `content` as its input; PROGRAM is `-m NAME` or `-c CODE`."""
    import jax

    from jaxcat.system import processes

    processes.LOST_AFTER = lost_after
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    with open(log, "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    sys.stdin = io.TextIOWrapper(io.BytesIO(content))
    kind, text = program
    sys.argv = [text if kind == "-m" else kind, *arguments]
    try:
        if kind == "-m":
            runpy.run_module(text, run_name="__main__", alter_sys=True)
        else:
            exec(compile(text, "-c", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # multiprocessing skips them; JAX's make the processes of a run leave together


def command(module: str, *arguments: object, logs: Path, devices: int = 1) -> tuple[int, str]:
    """Exit status and whole output, of both streams, of `python -m MODULE ARGUMENTS…`."""
    with Processes(1, ("-m", module), [str(word) for word in arguments], logs=logs, devices=devices) as run:
        (status,) = run.statuses(seconds=300)
        return status, run.output()


class Processes:
    """`python PROGRAM… ARGUMENTS…` in `count` processes; use as a context manager, which leaves none behind."""

    def __init__(
        self,
        count: int,
        program: Sequence[str],
        arguments: Sequence[str],
        *,
        logs: Path,
        devices: int = 2,
        lost_after: int = LOST_AFTER,
        each: Callable[[int], Sequence[str]] = lambda process: (),
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = [logs / f"{process}.log" for process in range(count)]
        self.running: list[BaseProcess] = []
        for process, log in enumerate(self.logs):
            log.touch()
            together = ["--coordinator", address, "--num-processes", str(count), "--process-id", str(process)]
            words = [*arguments, *each(process), *(together if count > 1 else [])]
            options = {"devices": devices, "environment": dict(os.environ), "log": log, "lost_after": lost_after}
            self.running.append(context().Process(target=run, args=(program, words), kwargs=options))
            self.running[-1].start()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            process.kill()
            process.join()

    def wait_for(self, text: str, *, process: int = 0, seconds: float = 600) -> None:
        """Until the output of a process has `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.output(process):
            assert self.running[process].is_alive(), self.output(process)
            assert time.monotonic() < deadline, self.output(process)
            time.sleep(0.02)

    def send(self, number: signal.Signals, *, process: int) -> None:
        os.kill(self.running[process].pid, number)

    def output(self, process: int = 0) -> str:
        return self.logs[process].read_text()

    def statuses(self, seconds: float = 600) -> list[int]:
        """Exit statuses once all have ended, which must be within `seconds`; -N if signal N ended it."""
        deadline = time.monotonic() + seconds
        for number, process in enumerate(self.running):
            process.join(max(0.1, deadline - time.monotonic()))
            assert not process.is_alive(), f"process {number} goes on: {self.output(number)[-2000:]}"
        return [process.exitcode for process in self.running]


class Forked:
    """In place of `subprocess.Popen` of a Python program; forked as above. Both output streams are one."""

    def __init__(
        self, command: Sequence[str], *, env: dict[str, str], stdout: TextIO | int, stdin: int = 0, **_: object
    ):
        """Starts it; with stdin=PIPE, `communicate` does. `stdout` is a file or PIPE."""
        at = next(place for place, word in enumerate(command) if word in ("-c", "-m"))
        if isinstance(stdout, int):
            file, name = tempfile.mkstemp()
            os.close(file)
        self._log = Path(name if isinstance(stdout, int) else stdout.name)
        self._program, self._words = command[at : at + 2], command[at + 2 :]
        self._environment, self._killed = env, False
        self._process: BaseProcess | None = None
        if stdin != subprocess.PIPE:
            self._start(b"")

    def _start(self, content: bytes) -> None:
        options = {"devices": 1, "environment": self._environment, "log": self._log, "lost_after": LOST_AFTER}
        arguments = (self._program, self._words)
        self._process = context().Process(target=run, args=arguments, kwargs={**options, "content": content})
        self._process.start()
        if self._killed:
            self._process.kill()

    @property
    def returncode(self) -> int | None:
        return self._process and self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> int | None:
        self._process.join()
        return self.returncode

    def communicate(self, content: bytes) -> tuple[bytes, bytes]:
        self._start(content)
        self.wait()
        said = self._log.read_bytes()
        self._log.unlink()
        return said, b""

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._killed = True
        if self._process:
            self._process.kill()
