"""Section article: how long the article's experiment takes, from the command to its result, in Keras and in jaxcat."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from compare_keras import accuracies, seconds_to

from benchmarking.rounds import Row

COMMAND = Path(__file__).resolve().parent.parent / "compare_keras.py"
EPOCHS, LAST = 20, 5
# Case of the table → name in compare_keras.py.
OURS = {
    "fast, empty cache": "fast",
    "fast, filled cache": "fast-again",
    "best, empty cache": "best",
    "best, filled cache": "best-again",
}


def article(data: Path | None, weights: Path | None, output: Path, *, seeds: int) -> Iterator[Row]:
    """Keras's article_mixed7 recipe and configs/cats_vs_dogs.py:fast and :best, whole commands; `output` keeps what is
    done.

    The time to the result is the time to the mean accuracy of Keras's last epochs, held to the end of the run.
    """
    if data is None or weights is None:
        yield Row("article", "all", "all", "", skipped="needs --data DIR and --weights FILE.h5")
        return
    runs = ",".join(["keras", *OURS.values()])
    options = {"data": data, "weights": weights, "output": output, "runs": runs, "seeds": seeds, "epochs": EPOCHS}
    command = [sys.executable, str(COMMAND), *(f"--{name}={value}" for name, value in options.items())]
    if status := subprocess.run(command, stdout=sys.stderr).returncode:
        yield Row("article", "all", "all", "", skipped=f"compare_keras.py ended with status {status}")
        return
    yield from rows(json.loads((output / "comparison.json").read_text()))


def rows(results: dict[str, list[dict]]) -> Iterator[Row]:
    """The lines of what compare_keras.py has measured, a value a seed."""
    ours_by_case = {case: name for case, name in OURS.items() if name in results}
    last = {name: [float(np.mean(accuracies(run)[-LAST:])) for run in runs] for name, runs in results.items()}
    for case, name in ours_by_case.items():
        yield Row("article", f"accuracy, {case}", "jaxcat", "", last[name])
    yield Row("article", f"accuracy, last {LAST} of {EPOCHS} epochs", "keras-tensorflow", "", last["keras"])
    wanted = float(np.mean(last["keras"]))
    theirs = Row("article", "whole command", "keras-tensorflow", "s", [run["seconds"] for run in results["keras"]])
    yield theirs
    for case, name in ours_by_case.items():
        ours = Row("article", f"whole command, {case}", "jaxcat", "s", [run["seconds"] for run in results[name]])
        ours.ratios = [keras / mine for keras, mine in zip(theirs.values, ours.values, strict=True)]
        yield ours
        times = [seconds for run in results[name] if (seconds := seconds_to(run, wanted)) is not None]
        reached = Row("article", f"time to Keras's mean accuracy, {case}", "jaxcat", "s", times)
        if len(times) == len(theirs.values):
            reached.ratios = [keras / mine for keras, mine in zip(theirs.values, times, strict=True)]
        elif not times:
            reached.skipped = f"no run held Keras's {wanted:.4f} to its end"
        yield reached
