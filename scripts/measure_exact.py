"""Measures the exact solver on made-up features: seconds of each stage, and the most memory.

    python scripts/measure_exact.py --records 2000
    python scripts/measure_exact.py --records 12000 --classes 200 --first 3 --last 5 --to 200000

Features have the widths of Inception-v3's blocks, average and standard deviation, and are kept in a file that is read
in blocks. If other programs run, seconds of the processor say more than those of the clock; with
OPENBLAS_NUM_THREADS=1, threads that wait do not add to them. With --to, each stage of a primal solution is scaled to
that many records: sums over records with their number, decompositions not at all. For D columns in place of the
measured, Gram matrix and leave-one-out grow with D², decompositions with D³.
"""

from __future__ import annotations

import argparse
import re
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxcat.objectives.exact.parts import Part
from jaxcat.objectives.exact.solve import solve_head

WIDTHS = [256, 288, 288, 768, 768, 768, 768, 768, 1280, 2048, 2048]  # channels of mixed0 … mixed10
RANGES = [(0, 11), (0, 8), (3, 8), (4, 8), (8, 11), (10, 11)]
PER_RECORD = ("means", "scale", "Gram matrix", "leave-one-out", "fitting probabilities")


class Stages:
    """Seconds between one message of progress and the next, by the first words of the message."""

    def __init__(self):
        self.clock, self.processor = defaultdict(float), defaultdict(float)
        self._stage, self._since = "start", (time.perf_counter(), time.process_time())

    def __call__(self, words: str) -> None:
        now = time.perf_counter(), time.process_time()
        self.clock[self._stage] += now[0] - self._since[0]
        self.processor[self._stage] += now[1] - self._since[1]
        self._stage, self._since = re.split(r" of |:| with | \d| mixed", words)[0], now


def parts_in(folder: Path, labels: np.ndarray, blocks: range) -> list[Part]:
    """Features whose classes differ a little, in one file a part."""
    parts, random = [], np.random.default_rng(0)
    for block in blocks:
        for statistic in ("average", "deviation"):
            width = WIDTHS[block]
            rows = np.lib.format.open_memmap(
                folder / f"{block}-{statistic}.npy", "w+", np.float32, (len(labels), width)
            )
            centres = 0.02 * random.standard_normal((labels.max() + 1, width), np.float32)
            for start in range(0, len(labels), 1000):
                some = labels[start : start + 1000]
                rows[start : start + 1000] = random.standard_normal((len(some), width), np.float32) + centres[some]
            rows.flush()
            parts.append(Part(f"mixed{block}", statistic, width, lambda start, stop, rows=rows: rows[start:stop]))
    return parts


def main(arguments: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--records", type=int, default=2000)
    flags.add_argument("--classes", type=int, default=2)
    flags.add_argument("--first", type=int, default=0, help="number of the first block")
    flags.add_argument("--last", type=int, default=10, help="number of the last block")
    flags.add_argument("--to", type=int, default=0, help="records to scale to")
    asked = flags.parse_args(arguments)
    labels = np.arange(asked.records) % asked.classes
    blocks = range(asked.first, asked.last + 1)
    ranges = [tuple(f"mixed{block}" for block in range(*ends)) for ends in RANGES]
    ranges = [some for some in ranges if all(int(name[5:]) in blocks for name in some)]
    ranges = ranges or [tuple(f"mixed{block}" for block in blocks)]
    with tempfile.TemporaryDirectory() as folder:
        parts = parts_in(Path(folder), labels, blocks)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stages = Stages()
        found = solve_head(parts, labels, classes=asked.classes, ranges=ranges, progress=stages)
        stages("end")
    for row in found.candidates:
        print({**row, "blocks": f"{row['blocks'][0]} … {row['blocks'][-1]}"})
    print(*found.notes, sep="\n")
    for stage, seconds in stages.clock.items():
        scaled = ""
        if asked.to:
            by = asked.to / asked.records if stage in PER_RECORD else 1
            scaled = f"   {asked.to:,} records: {by * stages.processor[stage]:9.1f} of the processor"
        print(f"{stage:16s} {seconds:8.1f} s, {stages.processor[stage]:8.1f} of the processor{scaled}")
    print(f"{'all':16s} {sum(stages.clock.values()):8.1f} s, {sum(stages.processor.values()):8.1f} of the processor")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory: at most {peak / 1e6:.2f} GB, {before / 1e6:.2f} before; pages of files that are mapped count too")


if __name__ == "__main__":
    main()
