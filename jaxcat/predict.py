"""python -m jaxcat.predict --workdir DIR PATH… [--output csv|jsonl] [--top 5] [--step best|latest|N]
python -m jaxcat.predict --weights NAME_OR_FILE PATH…       (ImageNet's 1000 classes, no training)

Names what is in pictures: one row per picture on standard output, in the order given; directories are walked in sorted
order. A picture that cannot be read is one line on standard error, and the exit status is 1 at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from jaxcat import cli
from jaxcat.classifier import Classifier, load
from jaxcat.compilation import enable_compilation_cache
from jaxcat.data import Ignored, walk
from jaxcat.errors import DataError
from jaxcat.imagenet import describe, imagenet_classifier


def find(paths: Sequence[Path]) -> Iterator[Path | DataError]:
    """The pictures that `paths` name, directories walked; an error stands in the place of a path that has none."""
    for path in paths:
        if not os.path.isdir(path):  # Path.is_dir raises for some names that lead nowhere
            yield path
            continue
        found = False
        for picture in walk(path, Ignored()):
            found = True
            yield picture
        if not found:
            yield DataError(f"{path}: no pictures in this directory")


def predict(
    classifier: Classifier, paths: Sequence[Path], *, batch_size: int = 32
) -> Iterator[tuple[Path, np.ndarray] | DataError]:
    """(path, probabilities (classes,)) or an error for each picture below `paths`, in order, a batch at a time."""

    def prepare(item: Path | DataError) -> np.ndarray | DataError:
        if isinstance(item, DataError):
            return item
        try:
            return classifier.prepare(item)
        except DataError as error:
            return error

    remaining = find(paths)
    with ThreadPoolExecutor() as threads:
        while chunk := list(islice(remaining, batch_size)):
            prepared = list(threads.map(prepare, chunk))
            pixels = (item for item in prepared if not isinstance(item, DataError))
            rows = iter([row for batch in classifier.predict_pixels(pixels, batch_size=batch_size) for row in batch])
            for item, result in zip(chunk, prepared, strict=True):
                if isinstance(result, DataError):
                    yield result
                elif isinstance(item, Path):
                    yield item, next(rows)


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="pictures, and directories of pictures")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--workdir", type=Path, help="of a training run")
    origin.add_argument("--weights", metavar="NAME", help="published weights, or a file that has their 1000-class top")
    parser.add_argument("--output", default="jsonl", choices=["csv", "jsonl"])
    parser.add_argument("--top", type=int, default=5, help="how many classes to name for each picture")
    parser.add_argument("--step", default="best", help="best (default), latest, or the number of a step")
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args(argv)
    if arguments.top < 1 or arguments.batch_size < 1:
        parser.error("--top and --batch-size must be at least 1")
    enable_compilation_cache()
    if arguments.weights:
        classifier = imagenet_classifier(arguments.weights)
        print(describe(classifier), file=sys.stderr)
    else:
        classifier = load(arguments.workdir, step=arguments.step)
    top = min(arguments.top, len(classifier.classes))
    for stream in (sys.stdout, sys.stderr):  # file names are bytes: print back what the system gave
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    table = csv.writer(sys.stdout)
    if arguments.output == "csv":
        runners_up = [f"{column}_{rank}" for rank in range(2, top + 1) for column in ("label", "probability")]
        table.writerow(["file", "label", "probability", *runners_up])
    failed = False
    for result in predict(classifier, arguments.paths, batch_size=arguments.batch_size):
        if isinstance(result, DataError):
            failed = True
            print(f"error: {result}", file=sys.stderr, flush=True)
            continue
        path, row = result
        best = [(classifier.classes[i], round(float(row[i]), 6)) for i in np.argsort(-row, kind="stable")[:top]]
        label, probability = best[0]
        if arguments.output == "csv":
            table.writerow([path, *(value for pair in best for value in pair)])
        else:
            record = {"file": str(path), "label": label, "probability": probability, "top": best}
            print(json.dumps(record), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
