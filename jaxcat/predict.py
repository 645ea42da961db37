"""python -m jaxcat.predict --workdir DIR PATH… [--output csv|jsonl] [--top 5] [--step best|latest|N]
python -m jaxcat.predict --weights NAME_OR_FILE PATH…       (the published 1,000 classes of ImageNet, no training)

Classifies images and prints one row for each on standard output, in the order given. Directories are searched
recursively, in sorted order. If an image cannot be read, standard error names it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxcat.errors import DataError
from jaxcat.system import cli


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="an image or a directory of images")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--workdir", type=Path, help="directory of a training run")
    origin.add_argument("--weights", metavar="NAME", help="published weights: a name, or a file with all layers")
    parser.add_argument("--output", default="jsonl", choices=["csv", "jsonl"], help="default: jsonl")
    parser.add_argument("--top", type=int, default=5, help="how many classes to name for each image")
    parser.add_argument("--step", default="best", help="best (default), latest, or the number of a step")
    parser.add_argument("--batch-size", type=int, default=32, help="images in a batch; default: 32")
    arguments = parser.parse_args(argv)
    if arguments.top < 1 or arguments.batch_size < 1:
        parser.error("--top and --batch-size must be at least 1")
    return write_rows(arguments)


def write_rows(arguments: argparse.Namespace) -> int:
    """Loads the classifier and prints a row, or an error, for each image."""
    import numpy as np

    from jaxcat.data.skipped import Skipped
    from jaxcat.inference.classifier import load
    from jaxcat.inference.prediction import predict
    from jaxcat.inference.published import describe, published_classifier
    from jaxcat.system.compilation import enable_compilation_cache

    enable_compilation_cache()
    if arguments.weights:
        classifier = published_classifier(arguments.weights)
        print(describe(classifier), file=sys.stderr)
    else:
        classifier = load(arguments.workdir, step=arguments.step)
    top = min(arguments.top, len(classifier.classes))
    for stream in (sys.stdout, sys.stderr):  # file names may be no valid UTF-8: print the same bytes
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    table = csv.writer(sys.stdout)
    if arguments.output == "csv":
        runners_up = [f"{column}_{rank}" for rank in range(2, top + 1) for column in ("label", "probability")]
        table.writerow(["file", "label", "probability", *runners_up])
    failed, skipped = False, Skipped()
    for result in predict(classifier, arguments.paths, batch_size=arguments.batch_size, skipped=skipped):
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
    for line in skipped.lines():
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
