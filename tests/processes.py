"""Several processes of one command on this machine, each with CPU devices of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


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
        each: Callable[[int], Sequence[str]] = lambda process: (),
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as conftest.py does, for the same reason
        }
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = [logs / f"{process}.log" for process in range(count)]
        self.running = []
        for process, log in enumerate(self.logs):
            together = ["--coordinator", address, "--num-processes", str(count), "--process-id", str(process)]
            command = [sys.executable, *program, *arguments, *each(process)]
            with open(log, "w") as output:
                self.running.append(
                    subprocess.Popen(
                        command + (together if count > 1 else []),
                        env=environment,
                        cwd=REPOSITORY,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()

    def wait_for(self, text: str, *, process: int = 0, seconds: float = 120) -> None:
        """Until the output of a process has `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.output(process):
            assert self.running[process].poll() is None, self.output(process)
            assert time.monotonic() < deadline, self.output(process)
            time.sleep(0.02)

    def output(self, process: int = 0) -> str:
        return self.logs[process].read_text()

    def statuses(self, seconds: float = 120) -> list[int]:
        """Exit statuses once all have ended, which must be within `seconds`."""
        deadline = time.monotonic() + seconds
        for number, process in enumerate(self.running):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"process {number} goes on: {self.output(number)[-2000:]}") from None
        return [process.returncode for process in self.running]
