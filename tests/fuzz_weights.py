"""Mutated weights files, each loaded in a child process of its own with limited memory and time.

    python tests/fuzz_weights.py --count 2000 --seed 0

The parent imports jaxcat once and forks for every file: a crash, a hang or a gigabyte is that child's alone. A child
forks the process that reads HDF5 first, too; test_weights.py starts the real one. Every outcome other than a clean
load or a WeightsError is a finding; crashes inside libhdf5 are counted apart.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from weights_files import WIDTH, WRITERS, random_network

from jaxcat.errors import WeightsError
from jaxcat.weights import strict
from jaxcat.weights.formats import hdf5_file
from jaxcat.weights.load import load_pretrained

SECONDS = 10  # a file that takes longer counts as a hang
MEMORY = 2**30  # bytes over the file's size and what the parent has already
LOADED, REFUSED, OTHER, GREEDY = range(4)  # exit statuses of a child


def mutate(content: bytes, generator: np.random.Generator) -> bytes:
    """One of: flipped bits anywhere, or in the head or tail; a cut; overwritten, doubled or removed bytes; a digit."""
    data = bytearray(content)
    kind = generator.integers(8)
    region = range(len(data))
    if kind in (1, 2):
        region = range(min(4096, len(data))) if kind == 1 else range(max(0, len(data) - 4096), len(data))
    if kind in (0, 1, 2):
        for _ in range(int(generator.integers(1, 17))):
            data[region[int(generator.integers(len(region)))]] ^= 1 << int(generator.integers(8))
    at, length = int(generator.integers(len(data))), int(generator.integers(1, 64))
    if kind == 3:
        del data[at:]
    elif kind == 4:
        data[at : at + length] = bytes([int(generator.choice([0, 255]))]) * length
    elif kind == 5:
        data[at:at] = data[at : at + length]
    elif kind == 6:
        del data[at : at + length]
    elif kind == 7:  # header edits: a number that a parser reads
        digits = [match.start() for match in re.finditer(rb"\d", bytes(data[: 2**16]))] or [0]
        for _ in range(int(generator.integers(1, 4))):
            data[digits[int(generator.integers(len(digits)))]] = ord("0") + int(generator.integers(10))
    return bytes(data)


def forked(command: list[str], *, input: bytes, env: dict[str, str], **_: object) -> subprocess.CompletedProcess:
    """What `subprocess.run` does with a script of Python's: starting one takes longer than most files."""
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if not pid:
            os.dup2(errors.fileno(), 2)
            os.environ.update(env)
            sys.stdin, sys.argv = io.TextIOWrapper(io.BytesIO(input)), command[1:]
            try:
                runpy.run_path(command[1], run_name="__main__")
            except SystemExit as exit:
                os.write(2, str(exit).encode())
                os._exit(1)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status), stderr=errors.read())


def child(path: Path) -> int:
    """Load `path` under limits; an exit status."""
    signal.alarm(SECONDS)
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MEMORY, used + 2 * MEMORY))
    try:
        load_pretrained(str(path), width=WIDTH)
        status = LOADED
    except WeightsError:
        status = REFUSED
    except BaseException:
        traceback.print_exc()
        return OTHER
    first = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # the process that reads HDF5 first, if there is one
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + max(first, inherited) - 2 * inherited) * 1024
    return GREEDY if grown > MEMORY + path.stat().st_size else status


def outcome(path: Path) -> str:
    """What became of a child that loaded `path`."""
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        os._exit(child(path))
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hang" if number == signal.SIGALRM else f"crash: {signal.Signals(number).name}"
    return ["loaded", "refused", "another exception", "too much memory"][os.WEXITSTATUS(status)]


def fuzz(layouts: list[str], *, count: int, seed: int, folder: Path) -> dict[str, Counter]:
    """Outcomes by layout; files that are neither loaded nor refused stay in `folder`."""
    generator = np.random.default_rng(seed)
    results = {}
    for layout in layouts:
        sound = WRITERS[layout](folder / "sound", random_network())
        if outcome(sound) != "loaded":
            raise SystemExit(f"{layout}: the sound file does not load")
        content, results[layout] = sound.read_bytes(), Counter()
        for i in range(count // len(layouts)):
            path = folder / f"{layout.replace(' ', '_')}_{i}"
            path.write_bytes(mutate(content, generator))
            result = outcome(path)
            results[layout][result] += 1
            if result in ("loaded", "refused"):
                path.unlink()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep findings here")
    arguments = parser.parse_args()
    layouts = list(WRITERS)
    try:
        import torch  # noqa: F401  before the forks
    except ImportError:
        layouts.remove("torch pth")
    strict.limits(None)  # the shapes of all backbones, worked out before the forks
    hdf5_file.subprocess = SimpleNamespace(run=forked, TimeoutExpired=subprocess.TimeoutExpired)
    folder = arguments.folder or Path(tempfile.mkdtemp())
    results = fuzz(layouts, count=arguments.count, seed=arguments.seed, folder=folder)
    print(json.dumps({layout: dict(outcomes) for layout, outcomes in results.items()}))


if __name__ == "__main__":
    main()
