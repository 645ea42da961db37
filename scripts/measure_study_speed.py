"""Measures how long a study takes on made-up features, beside what it is compared with. Run by hand.

    python scripts/measure_study_speed.py --records 2000 --compare
    python scripts/measure_study_speed.py --records 20000 --classes 200 --blocks 8 --width 500

The first compares with single eigendecompositions of that size, and with scikit-learn's grid search, timed on one range
and scaled by the number of features. Features are in memory; the passes through the network are not measured. If other
programs run, seconds of the processor say more, with OPENBLAS_NUM_THREADS=1, so that threads that wait are not counted.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from scipy.linalg import eigh

from jaxcat.configs import folder
from jaxcat.data.records import Split
from jaxcat.objectives.exact.parts import Part
from jaxcat.study.collect import Collected
from jaxcat.study.ranking import rank_at, records_of
from jaxcat.study.results import Clock, Results, analyse

WIDTHS = [256, 288, 288, 768, 768, 768, 768, 768, 1280, 2048, 2048]  # channels of mixed0 … mixed10
COSTS = 10.0  # milliseconds of a block, made up
FOLDS, PENALTIES = 5, 12


def made_up(records: int, classes: int, widths: Sequence[int], *, signal: float = 0.1) -> Collected:
    """Features whose classes differ by `signal`, as a study collects them."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, records).astype(np.int32)
    parts = []
    for number, width in enumerate(widths):
        means = random.standard_normal((classes, width)).astype(np.float32)
        for statistic in ("avg", "std"):
            rows = random.standard_normal((records, width), dtype=np.float32)
            rows += signal * means[labels]
            parts.append(Part(f"mixed{number}", statistic, width, lambda start, stop, rows=rows: rows[start:stop]))
    files = tuple(f"{number}.png" for number in range(records))
    split = Split("train", files, labels, lambda index: np.zeros((1, 1, 3), np.uint8))
    config = folder.get_config()
    config.data.image_size = 299
    names = tuple(f"class {number}" for number in range(classes))
    run = cast(Any, SimpleNamespace())
    return Collected(config, names, {"train": split}, {"train": np.arange(records)}, {"train": parts}, run)


def study(collected: Collected) -> Results:
    """All steps of a study but the passes through the network."""
    clock = Clock()
    silent = lambda words: None  # noqa: E731
    records = records_of(collected)
    found, grams = rank_at(collected, records, progress=silent)
    clock.done("ranking")
    blocks = dict.fromkeys(part.block for part in collected.parts["train"])
    costs = {collected.size: {block: COSTS * (number + 1) for number, block in enumerate(blocks)}}
    return analyse(
        {collected.size: collected}, [found], records, (collected.size, grams), costs, clock=clock, progress=silent
    )


def eigendecomposition(records: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor of one."""
    rows = np.random.default_rng(0).standard_normal((records, records + 500))
    gram = np.asfortranarray(rows @ rows.T)
    began = now()
    eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    return since(began)


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    ended = now()
    return ended[0] - began[0], ended[1] - began[1]


def grid_search(collected: Collected, blocks: int) -> tuple[tuple[float, float], int]:
    """Seconds of scikit-learn's grid search on averages of the first blocks, one penalty; and their columns."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    split = collected.splits["train"]
    parts = [part for part in collected.parts["train"] if part.statistic == "avg"][:blocks]
    rows = np.hstack([part.read(0, len(split)) for part in parts])
    search = GridSearchCV(
        make_pipeline(StandardScaler(), RidgeClassifier()), {"ridgeclassifier__alpha": [1.0]}, cv=FOLDS, refit=False
    )
    began = now()
    search.fit(rows, split.labels)
    return since(began), rows.shape[1]


def _both(clock: float, processor: float) -> str:
    return f"{clock:.1f} s ({processor:.1f} of the processor)"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=len(WIDTHS))
    parser.add_argument("--width", type=int, default=0, help="of every part; default: those of Inception-v3")
    parser.add_argument("--compare", action="store_true", help="time eigendecompositions and scikit-learn too")
    asked = parser.parse_args(argv)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    widths = [asked.width] * asked.blocks if asked.width else WIDTHS[: asked.blocks]
    collected = made_up(asked.records, asked.classes, widths)
    if asked.compare:
        clock, processor = np.min([eigendecomposition(asked.records) for _ in range(3)], axis=0)
        ranges = asked.blocks * (asked.blocks + 1)
        print(f"eigendecomposition: {_both(clock, processor)}; {ranges}: {_both(ranges * clock, ranges * processor)}")
        timed, columns = grid_search(collected, len(widths))
        spans = [sum(widths[i:j]) for i in range(len(widths)) for j in range(i + 1, len(widths) + 1)]
        times = PENALTIES * 3 * sum(spans) / columns  # avg, and avg_std with twice the columns
        print(f"scikit-learn: {_both(*timed)} for {columns} features; whole grid {_both(*(times * t for t in timed))}")
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, now()
    results = study(collected)
    print(f"ranked on {results.ranked_on:,}; winner {results.winner.describe()}: {results.accuracy.describe()}")
    for step, taken in results.seconds.items():
        print(f"{step:20s} {taken:7.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"all {_both(*since(began))}; memory at most {peak / 1e6:.2f} GB, {before / 1e6:.2f} before")


if __name__ == "__main__":
    main()
