"""Kills a small real run repeatedly, and compares its final state with that of an undisturbed run.

    python scripts/kill_test.py [--kills 50] [--seed 0] [--workdir DIR] [--config.NAME=VALUE …]
    python scripts/kill_test.py --config.bottleneck.views=3        # computes the bottlenecks anew for every run
    python scripts/kill_test.py --stages                           # solves the head, then trains one block, then two

A narrow Inception-v3 learns two classes of noise images, with dropout, augmentation, moving BatchNorm statistics and a
checkpoint every few steps. One run goes to its end; others are killed (SIGKILL) at random moments and restarted by the
same command until they finish. The moments are chosen in three ways in turn: any time since the start of the process,
any time since its first step, and shortly after a write of a checkpoint has begun. Just before each kill, faulthandler
records what the process is doing; the table at the end counts that. Other --config flags go to the train command.

Exit status: 0 if every run ended with the same metrics (but for times), the same checkpoints and the same digest of
every parameter, optimizer and BatchNorm array; 1 if not.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcat.runs import workdir as workdirs
from jaxcat.runs.choice import choose
from jaxcat.runs.meta import read_meta
from jaxcat.system import cli

REPOSITORY = Path(__file__).resolve().parent.parent
TIMES = ("images_per_second", "data_wait_seconds", "seconds")
SETTINGS = (
    *("--config.model.weights=none", "--config.model.width=0.0625", "--config.model.cut=mixed0"),
    *("--config.model.train_from=mixed0", "--config.model.train_bn=True", "--config.model.dropout=0.3"),
    *("--config.data.image_size=75", "--config.data.augment=article", "--config.batch_size=7", "--config.epochs=8"),
    *("--config.optim.name=adam", "--config.optim.schedule=cosine", "--config.checkpoint.every_steps=3"),
    "--config.bottleneck.views=0",
)
STAGES = (
    *("--config.train.stages=head::exact, mixed1:3:1e-3, mixed0:3:1e-4", "--config.model.train_from=head"),
    *("--config.model.cut=mixed1", "--config.model.pool_from=mixed0", "--config.model.pool=avg_std"),
)
# python -m jaxcat.train, which on SIGUSR1 writes where its main thread is to the file named first.
ASKABLE = """
import faulthandler, runpy, signal, sys
stacks = open(sys.argv.pop(1), "w")
faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=False)
print("listening", file=stacks, flush=True)
runpy.run_module("jaxcat.train", run_name="__main__", alter_sys=True)
"""


def make_images(root: Path) -> Path:
    """Two classes of noise, one redder: 32 to train on and 120 to validate, so that evaluation takes its time."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 16), ("validation", 60)):
        for red, name in enumerate(("blue", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = generator.integers(0, 200, (80, 80, 3), np.uint8)
                noise[..., 0] += np.uint8(50 * red)
                Image.fromarray(noise).save(folder / f"{i:02}.png")
    return root


class Run:
    """One process of `jaxcat.train`, its output in a file."""

    def __init__(self, workdir: Path, *, images: Path, cache: Path, settings: Sequence[str]):
        self.workdir, self.began = workdir, time.monotonic()
        self.output, self.stacks = workdir.with_suffix(".out"), workdir.with_suffix(".stacks")
        self.stacks.unlink(missing_ok=True)  # of the process before
        command = [
            sys.executable,
            "-c",
            ASKABLE,
            str(self.stacks),
            "--config",
            f"{REPOSITORY}/configs/folder.py:trained",
        ]
        command += ["--workdir", str(workdir), f"--config.data.dir={images}", *SETTINGS, *settings]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "JAXCAT_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait until `condition`, or the end of the process; whether it came to that."""
        while self.process.poll() is None:
            if condition():
                return True
            time.sleep(0.001)
        return False

    def steps_began(self) -> bool:
        return "compiling the first step" in self.output.read_text()

    def writing(self) -> bool:
        folder = self.workdir / "checkpoints"
        return folder.is_dir() and any("tmp" in name for name in os.listdir(folder))

    def kill(self) -> str:
        """Send SIGKILL; where the process was, or "" if it had ended before."""
        listening = self.stacks.exists() and self.stacks.read_text().startswith("listening")
        if listening:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(0.005)
        self.process.kill()
        # Besides SIGKILL: faulthandler may crash as it reads; at the end of Python it no longer takes SIGUSR1.
        if self.process.wait() not in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGUSR1):
            return ""
        return place(self.stacks.read_text() if listening else "")


def place(stacks: str) -> str:
    """The innermost function of jaxcat in the stack that faulthandler wrote."""
    found = re.search(r'jaxcat/([\w/]+)\.py", line \d+ in (\w+)', stacks)
    return f"{found.group(1)}.{found.group(2)}" if found and found.group(2) != "<module>" else "start, imports"


def outcome(workdir: Path) -> dict:
    """What must be the same: metrics without times, the checkpoints there are, their digests, which is best."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    entries = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    digests = {step: read_meta(workdir, step).digests for step in workdirs.steps(workdir)}
    left = [str(path.relative_to(workdir)) for path in workdir.rglob("*tmp*")]
    return {"metrics": entries, "digests": digests, "best": choose(workdir, "best"), "unfinished": left}


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="total number of kills (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the moments")
    parser.add_argument("--workdir", type=cli.path, help="a new folder, kept (default: a temporary one)")
    parser.add_argument("--stages", action="store_true", help="a run with stages")
    arguments, settings = parser.parse_known_args(argv)
    settings = [*(STAGES if arguments.stages else ()), *settings]
    if arguments.workdir is not None and arguments.workdir.exists():
        parser.error(f"--workdir {arguments.workdir}: exists; name a new directory")
    folder = arguments.workdir or Path(tempfile.mkdtemp(prefix="kill_test-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return test(folder.absolute(), settings, kills=arguments.kills, generator=random.Random(arguments.seed))
    finally:
        if arguments.workdir is None:
            shutil.rmtree(folder)


def test(folder: Path, settings: Sequence[str], *, kills: int, generator: random.Random) -> int:
    images, cache = make_images(folder / "images"), folder / "cache"

    def start(name: str) -> Run:
        return Run(folder / name, images=images, cache=cache, settings=settings)

    start("warm").process.wait()  # fills the cache of compiled programs, so that the next one measures as the others
    whole = start("whole")
    whole.wait_for(whole.steps_began)
    start_seconds = time.monotonic() - whole.began
    if whole.process.wait() != 0:
        print(whole.output.read_text())
        return 1
    step_seconds = time.monotonic() - whole.began - start_seconds
    expected = outcome(folder / "whole")
    print(f"undisturbed: {start_seconds:.1f} s to the first step, then {step_seconds:.1f} s", flush=True)
    places: collections.Counter[str] = collections.Counter()
    runs = starts = different = 0
    while places.total() < kills:
        name, killed = f"run{runs}", 0
        shutil.rmtree(cache / "bottlenecks", ignore_errors=True)
        while True:
            run, source = start(name), starts % 3
            starts += 1
            if places.total() == kills:
                run.process.wait()
            elif source == 0:
                moment = generator.uniform(0, start_seconds + step_seconds)
                run.wait_for(lambda run=run, moment=moment: time.monotonic() - run.began > moment)
            elif run.wait_for(run.steps_began if source == 1 else run.writing):
                time.sleep(generator.uniform(0, step_seconds) if source == 1 else generator.uniform(0, 0.1))
            where = run.kill() if run.process.poll() is None else ""
            if not where:
                break
            places[where] += 1
            killed += 1
        runs += 1
        if run.process.returncode != 0:
            print(f"{name}: ended with {run.process.returncode}:\n{run.output.read_text()}")
            return 1
        found = outcome(folder / name)
        same = [key for key in expected if found[key] == expected[key]]
        different += len(same) < len(expected)
        verdict = "the same" if len(same) == len(expected) else f"DIFFERENT in {set(expected) - set(same)}"
        print(f"{name}: killed {killed} times, {verdict}; {places.total()} of {kills} kills", flush=True)
    print(f"\n{places.total()} kills in {runs} runs, {different} of them different; what was running when killed:")
    for where, count in places.most_common():
        print(f"{count:5}  {where}")
    return 1 if different else 0


if __name__ == "__main__":
    cli.run(main)
