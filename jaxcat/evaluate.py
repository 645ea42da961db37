"""python -m jaxcat.evaluate --workdir DIR [--split validation] [--data DIR2] [--step best|latest|N]

Evaluates a trained classifier on every image of a split, or of another folder. Each image is counted once. Prints a
table and writes DIR/evaluation/NAME.json and NAME.predictions.csv; NAME is that of the split or folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jaxcat.system import cli

SPLITS = ("train", "validation", "test")


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=Path, help="directory of a training run")
    parser.add_argument("--split", default="validation", choices=SPLITS, help="default: validation")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR2",
        help="measure on DIR2/CLASS/… (or an archive, or a table) instead of the run's own data",
    )
    parser.add_argument("--step", default="best", help="best (default), latest, or the number of a step")
    parser.add_argument("--batch-size", type=int, default=32, help="images in a batch; default: 32")
    cli.add_process_flags(parser)
    arguments = parser.parse_args(argv)
    if arguments.batch_size < 1:
        parser.error(f"--batch-size {arguments.batch_size}: must be at least 1")
    return measure(arguments)


def measure(arguments: argparse.Namespace) -> int:
    """Evaluates as the flags ask, prints the table and writes the files."""
    import jax
    import numpy as np

    from jaxcat.data.store import open_stores
    from jaxcat.inference.classifier import load
    from jaxcat.inference.evaluation import evaluate, name_of, open_split, show, summarize, write_evaluation
    from jaxcat.system.compilation import enable_compilation_cache
    from jaxcat.system.console import Console
    from jaxcat.system.processes import initialize_distributed

    initialize_distributed(
        arguments.coordinator, num_processes=arguments.num_processes, process_id=arguments.process_id
    )
    enable_compilation_cache()
    classifier = load(arguments.workdir, step=arguments.step)
    split, data = open_split(classifier, split=arguments.split, data=arguments.data), classifier.config.data
    (store,) = open_stores(
        {split.name: split},
        sizes={split.name: data.image_size},
        mode=data.resize,
        cache_gb=0.0,  # each image is read once: nothing to keep
        skip_bad=data.skip_bad,
    ).values()
    log_probabilities = evaluate(classifier, store, batch_size=arguments.batch_size)
    summary = summarize(log_probabilities, store.split.labels, classifier.classes)
    summary["step"] = classifier.step
    if jax.process_index() != 0:
        return 0
    name = arguments.split if arguments.data is None else name_of(arguments.data)
    show(Console(tables=True), summary, f"{name}, step {classifier.step}")
    written = write_evaluation(
        arguments.workdir, name, summary=summary, split=store.split, probabilities=np.exp(log_probabilities)
    )
    print(f"written: {written} and {written.with_suffix('.predictions.csv').name}")
    return 0


if __name__ == "__main__":
    cli.run(main)
