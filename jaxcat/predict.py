"""python -m jaxcat.predict --workdir DIR PATH… [--output csv|jsonl] [--top 5] [--step best|latest|N]
python -m jaxcat.predict --workdir DIR PATH… --output csv --wide --features FILE
python -m jaxcat.predict --workdir DIR PATH… --explain DIR2 [--block mixed7]
python -m jaxcat.predict --weights NAME_OR_FILE PATH…       (the published 1,000 classes of ImageNet, no training)

Classifies images and prints one row for each on standard output, in the order given. Directories are searched
recursively, in sorted order. If an image cannot be read, standard error names it, and the exit status is 1.

--wide prints file, label, probability and then one column for each class, in the order of the classifier. A class with
the name of an earlier column gets the column "NAME (class)". In CSV, a cell that a spreadsheet would run as a formula
has an apostrophe before it; JSON lines keep names as they are.

--features FILE also writes the pooled features that the head sees. FILE.npy is one float32 array (N, features) with a
row for each printed row, in that order: images that cannot be read have none. FILE.npz holds that array as "features",
and the paths as "files". The file appears when all images are done.

--explain DIR2 also writes where the network looked (Grad-CAM): each image as a PNG with a heat map for its most
probable class, and explanations.csv, which names the PNG of each file. DIR2 is new or empty. JAX computes the maps,
at the last block that the head reads or at --block.

--engine says what computes. auto, the default, is the engine of the run; with LiteRT, answers take seconds and no JAX.
It is xla, and one line says so, if this machine has no interpreter for LiteRT, or has not converted the network yet and
there are fewer than 300 images.

--average-over averages the probabilities of several views of each image (test-time augmentation), and says what that
costs; docs/test_time_augmentation.md says what it changed. It cannot be combined with --features or --explain, which
are about the unchanged image.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxcat.bottlenecks.engines.names import AUTO, LEAST_RECORDS, XLA
from jaxcat.data.indexing.table import class_columns
from jaxcat.errors import DataError
from jaxcat.escaping import for_cell
from jaxcat.inference.averaged import ORIGINAL, add_average_flag, average_of
from jaxcat.inference.run_flags import add_batch_size_flag, add_run_flags, open_published, open_run
from jaxcat.system import cli

if TYPE_CHECKING:
    from jaxcat.inference.classifier import Classifier
    from jaxcat.inference.prediction import Found, Prediction
    from jaxcat.system.console import Console


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=cli.path_as_typed, metavar="PATH", help="an image or a directory")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--workdir", type=cli.path, help="directory of a training run")
    origin.add_argument("--weights", metavar="NAME", help="published weights: a name, or a file with all layers")
    parser.add_argument("--output", default="jsonl", choices=["csv", "jsonl"], help="default: jsonl")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--top", type=int, default=5, help="how many classes to name for each image")
    form.add_argument("--wide", action="store_true", help="with --output csv: one column for each class")
    parser.add_argument("--features", type=cli.path, metavar="FILE", help="also write what the head sees; .npy or .npz")
    parser.add_argument("--explain", type=cli.path, metavar="DIR", help="also write images with heat maps, to DIR")
    parser.add_argument("--block", default="", metavar="NAME", help="with --explain: the block whose map is drawn")
    add_run_flags(parser)
    add_average_flag(parser)
    add_batch_size_flag(parser)
    arguments = parser.parse_args(argv)
    if arguments.top < 1 or arguments.batch_size < 1:
        parser.error("--top and --batch-size must be at least 1")
    if arguments.wide and arguments.output != "csv":
        parser.error("--wide needs --output csv; JSON lines name the --top classes")
    if arguments.block and not arguments.explain:
        parser.error("--block needs --explain DIR")
    if arguments.weights and arguments.engine not in (AUTO, XLA):
        parser.error(f"--engine {arguments.engine} needs --workdir: xla computes the classes of published weights")
    if arguments.weights and arguments.calibrated:
        parser.error("--calibrated needs --workdir: published weights have no calibration.json")
    for flag in ("features", "explain"):
        if getattr(arguments, flag) and arguments.average_over != ORIGINAL:
            parser.error(f"--{flag} is about the unchanged image; leave --average-over {arguments.average_over} out")
    return write_rows(arguments)


def write_rows(arguments: argparse.Namespace) -> int:
    """Loads the classifier and prints a row, or an error, for each image."""
    from jaxcat.data.indexing.skipped import Skipped
    from jaxcat.inference.explanation import block_to_explain
    from jaxcat.inference.explanations_folder import check_folder
    from jaxcat.inference.features_file import check_features_path, features_file
    from jaxcat.inference.prediction import find
    from jaxcat.system.console import Console, counting, said_if_long

    if arguments.features:
        check_features_path(arguments.features)
    if arguments.explain:
        check_folder(arguments.explain, arguments.paths)
    console, average = Console(stderr=True), average_of(arguments.average_over)
    if not average.unchanged:
        console.print(f"average over {arguments.average_over}: {average.cost}")
    classifier = _classifier(arguments, console)
    if arguments.explain:
        block_to_explain(classifier.config.model, arguments.block, named="--block ")
        _ = classifier.xla  # reads what JAX needs now, so that damage is reported before the work
    show = _rows(arguments.output, classifier.classes, top=arguments.top, wide=arguments.wide)
    failed, skipped = False, Skipped()
    with contextlib.ExitStack() as stack:
        images = find(arguments.paths, skipped)
        ahead = list(itertools.islice(images, 0 if classifier.engine.wanted == XLA else LEAST_RECORDS))
        width = classifier.engine.computation(len(ahead) * average.passes, console=console).features
        keep = stack.enter_context(features_file(arguments.features, count=width)) if arguments.features else None
        results, draw = _results(arguments, classifier, itertools.chain(ahead, images), stack)
        with said_if_long("computing the first rows", console=console):
            first = list(itertools.islice(results, 1))
        hidden = not sys.stdout.isatty()  # on a terminal the rows themselves show how far it is
        advance = stack.enter_context(counting("images", console=console)) if hidden else None
        for result in itertools.chain(first, results):
            if advance is not None:
                advance(1)
            if isinstance(result, DataError):
                failed = True
                print(f"error: {result}", file=sys.stderr, flush=True)
                continue
            if keep is not None and result.features is not None:
                keep(result.path, result.features)
            if draw is not None:
                draw(result)
            try:
                show(result.path, result.probabilities)
            except BrokenPipeError:  # the reader of our output has ended
                if keep is None and draw is None:
                    raise
                Console().on_broken_pipe()  # go on without output: the files are wanted all the same
    for line in skipped.lines():
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _classifier(arguments: argparse.Namespace, console: Console) -> Classifier:
    """The classifier of the run, or of published weights, which it describes in a line."""
    if not arguments.weights:
        return open_run(
            arguments.workdir,
            step=arguments.step,
            engine=arguments.engine,
            calibrated=arguments.calibrated,
            console=console,
        )
    from jaxcat.inference.published import describe

    classifier = open_published(arguments.weights, console=console)
    print(describe(classifier), file=sys.stderr)
    return classifier


def _results(
    arguments: argparse.Namespace, classifier: Classifier, images: Iterable[Found], stack: contextlib.ExitStack
) -> tuple[Iterator[Prediction | DataError], Callable[[Prediction], None] | None]:
    """The results for all images and, with --explain, what draws the explanation of a prediction."""
    from jaxcat.inference import explanations_folder
    from jaxcat.inference.prediction import predict

    size, features = arguments.batch_size, bool(arguments.features)
    if not arguments.explain:
        average_over = arguments.average_over
        return predict(classifier, images, batch_size=size, average_over=average_over, features=features), None
    copies = explanations_folder.LONGEST_SIDE
    results = predict(classifier, images, batch_size=size, features=features, copies=copies)
    draw = stack.enter_context(explanations_folder.explanations_folder(arguments.explain, classifier))
    return explanations_folder.explained(classifier, results, block=arguments.block), draw


def _rows(output: str, classes: Sequence[str], *, top: int, wide: bool) -> Callable[[Path, np.ndarray], None]:
    """The function that prints the row of an image, as `--output` says; prints the header of a table."""
    table, columns, top = csv.writer(sys.stdout), ["file", "label", "probability"], min(top, len(classes))
    cells = [for_cell(name) for name in classes]

    def best(row: np.ndarray) -> list[int]:
        return np.argsort(-row, kind="stable")[:top].tolist()

    def json_line(path: Path, row: np.ndarray) -> None:
        named = [(classes[i], round(float(row[i]), 6)) for i in best(row)]
        label, probability = named[0]
        record = {"file": str(path), "label": label, "probability": probability, "top": named}
        print(json.dumps(record), flush=True)

    def best_of_table(path: Path, row: np.ndarray) -> None:
        named = [(cells[i], round(float(row[i]), 6)) for i in best(row)]
        table.writerow([for_cell(str(path)), *(value for pair in named for value in pair)])

    def wide_row(path: Path, row: np.ndarray) -> None:
        first = int(row.argmax())
        figures = [f"{probability:.6f}" for probability in row]
        table.writerow([for_cell(str(path)), cells[first], figures[first], *figures])

    if output == "jsonl":
        return json_line
    if wide:
        table.writerow([*columns, *class_columns(classes, columns)])
        return wide_row
    runners_up = [f"{column}_{rank}" for rank in range(2, top + 1) for column in columns[1:]]
    table.writerow([*columns, *runners_up])
    return best_of_table


if __name__ == "__main__":
    cli.run(main)
