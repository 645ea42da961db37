"""Sections startup, memory and growth: what a user waits for before the first step, how much memory a run takes, and
what more images cost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarking.model import PEERS, Team
from benchmarking.rounds import Effort, Row
from benchmarking.worker import PeerError, Worker

REPOSITORY = Path(__file__).resolve().parent.parent.parent
IMPORTS = {
    "import nothing": ["-c", "pass"],
    "import jaxcat": ["-c", "import jaxcat"],
    "python -m jaxcat.train --help": ["-m", "jaxcat.train", "--help"],
}
TIMES_STARTED = 3
IMAGES = (250, 500, 1000, 2000)  # once, twice, four and eight times as many


def startup(team: Team, effort: Effort, *, size: int, batch: int) -> Iterator[Row]:
    """Imports; the first head-only step of every peer in a new process; the train command up to its first step."""
    lines = {name: Row("startup", name, "jaxcat", "s") for name in IMPORTS}
    for _ in range(effort.rounds):
        for name, arguments in IMPORTS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
            lines[name].values.append(time.perf_counter() - began)
    yield from lines.values()
    yield from team.skipped("startup")
    case = {"size": size, "batch": batch, "dtype": "float32", "train_from": "head"}
    text = f"process start to first head-only step, {size} px"
    first = {name: Row("startup", text, name, "s") for name in team.present if name != "jaxcat"}
    cold, warm = (Row("startup", text, f"jaxcat, {cache} compilation cache", "s") for cache in ("cold", "warm"))
    for _ in range(TIMES_STARTED):
        for name, row in first.items():
            _first_step(row, name, case)
        if "jaxcat" in team.present:
            with tempfile.TemporaryDirectory() as cache:
                _first_step(cold, "jaxcat", case, {"JAXCAT_CACHE": cache})
                _first_step(warm, "jaxcat", case, {"JAXCAT_CACHE": cache})
    yield from (row for row in (cold, warm, *first.values()) if row.values or row.skipped)
    yield from train_command_startup(size)


def _first_step(row: Row, name: str, case: dict, environment: dict[str, str] | None = None) -> None:
    module, variables = PEERS[name]
    worker = Worker(module, variables | (environment or {}))
    try:
        row.values.append(worker.ask("first", task="step", case=case))
    except PeerError as error:
        row.skipped = str(error)
    finally:
        worker.close()


def train_command_startup(size: int) -> Iterator[Row]:
    """Wall time from typing the train command to the line that reports its first step."""
    text = f"train command to its first step, {size} px, 100 digits, untrained weights"
    cold, warm = (Row("startup", text, f"jaxcat, {cache} compilation cache", "s") for cache in ("cold", "warm"))
    for _ in range(TIMES_STARTED):
        with tempfile.TemporaryDirectory() as cache:
            for row in (cold, warm):
                try:
                    row.values.append(_until_first_step(size, cache))
                except PeerError as error:
                    row.skipped = str(error)
    yield from (cold, warm)


def _until_first_step(size: int, cache: str) -> float:
    with tempfile.TemporaryDirectory() as workdir:
        settings = {"data.source": "digits", "model.weights": "none", "data.image_size": size, "epochs": 1}
        settings |= {"data.train_size": 100, "data.validation_size": 20}
        began = time.perf_counter()
        with subprocess.Popen(
            _train_command("configs/folder.py:trained", workdir, settings),
            cwd=REPOSITORY,
            env={**os.environ, "JAXCAT_CACHE": cache, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            last = ""
            for line in process.stdout or ():
                last = line.strip() or last
                if re.match("first step", line):
                    taken = time.perf_counter() - began
                    process.kill()
                    return taken
    raise PeerError(f"the train command ended before its first step: {last}")


def memory(team: Team, *, sizes: Sequence[int], batch: int, data: Path | None, weights: Path | None) -> Iterator[Row]:
    """Peak memory of a process that takes one step of every size and kind, and of the article's job."""
    yield from team.skipped("memory")
    for size in sizes:
        for train_from in ("head", "stem"):
            text = f"one step, {size} px, batch {batch}, from {train_from}"
            for name in team.present:
                case = {"size": size, "batch": batch, "dtype": "float32", "train_from": train_from}
                worker = Worker(*PEERS[name])
                try:
                    worker.ask("first", task="step", case=case)
                    peak = worker.ask("memory")
                except PeerError as error:
                    yield Row("memory", text, name, "MB", skipped=str(error))
                    continue
                finally:
                    worker.close()
                yield Row("memory", text, name, "MB on the host", [peak["host"] / 1e6])
                if peak["device"] is not None:
                    yield Row("memory", text, name, "MB on the device", [peak["device"] / 1e6])
    yield _article_job(data, weights)


def _article_job(data: Path | None, weights: Path | None) -> Row:
    row = Row("memory", "train command, article_mixed7, one epoch", "jaxcat", "MB on the host")
    if data is None:
        row.skipped = "needs --data DIR"
        return row
    settings = {"data.dir": data, "model.weights": weights or "none", "epochs": 1}
    try:
        row.values = [_train("configs/cats_vs_dogs.py:article_mixed7", settings)[1] / 1e6]
    except PeerError as error:
        row.skipped = str(error)
    return row


def growth(data: Path | None, weights: Path | None, *, size: int) -> Iterator[Row]:
    """The train command with bottlenecks on ever more of the images, none of them held in memory; an epoch each."""
    if data is None:
        yield Row("growth", "all", "jaxcat", "", skipped="needs --data DIR")
        return
    for count in IMAGES:
        settings = {"data.dir": data, "data.train_size": count, "data.validation_size": 50, "data.cache_gb": 0.0}
        settings |= {"data.image_size": size, "model.weights": weights or "none", "epochs": 1}
        text = f"train command, default head, {size} px, {count} images, empty cache of bottlenecks"
        try:
            seconds, peak = _train("configs/cats_vs_dogs.py", settings)
        except PeerError as error:
            yield Row("growth", text, "jaxcat", "", skipped=str(error))
            continue
        yield Row("growth", text, "jaxcat", "s", [seconds])
        yield Row("growth", text, "jaxcat", "MB on the host", [peak / 1e6])


def _train(config: str, settings: dict) -> tuple[float, int]:
    """Run the train command with a cache of its own; the seconds it took and its peak memory in bytes."""
    with tempfile.TemporaryDirectory() as workdir, tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        command, environment = _train_command(config, workdir, settings), {**os.environ, "JAXCAT_CACHE": cache}
        with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
    if process.returncode:
        raise PeerError(f"the train command ended with status {process.returncode}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _train_command(config: str, workdir: str, settings: dict) -> list[str]:
    command = [sys.executable, "-m", "jaxcat.train", "--config", config, "--workdir", workdir]
    return command + [f"--config.{name}={value}" for name, value in settings.items()]
