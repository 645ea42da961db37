"""python -m jaxcat.evaluate --workdir DIR [--split validation] [--data DIR2 | --moved-data DIR3] [--results-dir DIR4]

Evaluates a trained classifier on every image of a split, or of another folder. Each image is counted once. Prints a
table and writes DIR/evaluation/NAME.json and NAME.predictions.csv; NAME is that of the split or folder.

A run remembers its records in DIR/records.jsonl. So its train and validation splits stay the same if images are added,
and --moved-data finds them in another place: by content, then by name. --data warns of images that the run was trained
on. A run of an older version has no such list: its images are known by their names only, and evaluate says so.

If the cache has the bottlenecks of all these images as float32, they are read, and no image is decoded: the same
figures in seconds.

--engine says what computes. auto, the default, is the engine of the run; with LiteRT, answers take seconds and no JAX.
It is xla, and one line says so, if this machine has no interpreter for LiteRT, or has not converted the network yet and
there are fewer than 300 images. NAME.json has the engine's name as "engine" and, but for xla, the interpreter's name
and version as "interpreter"; with --calibrated also the "temperature".

--average-over averages the probabilities of several views of each image (test-time augmentation), and says what that
costs; docs/test_time_augmentation.md says what it changed. Bottlenecks in the cache are not used. The files are
NAME-mirrored.json and so on; the JSON file names the views as "average_over".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jaxcat.inference.averaged import ORIGINAL, add_average_flag, average_of
from jaxcat.inference.run_flags import add_batch_size_flag, add_data_flags, add_run_flags, open_run
from jaxcat.system import cli


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=cli.path, help="directory of a training run")
    add_data_flags(parser, cli.path, split="validation")
    parser.add_argument(
        "--results-dir",
        type=cli.path,
        metavar="DIR4",
        help="write here, not to DIR/evaluation; made if missing",
    )
    add_run_flags(parser)
    add_average_flag(parser)
    add_batch_size_flag(parser)
    cli.add_process_flags(parser)
    arguments = parser.parse_args(argv)
    if arguments.batch_size < 1:
        parser.error(f"--batch-size {arguments.batch_size}: must be at least 1")
    return measure(arguments)


def measure(arguments: argparse.Namespace) -> int:
    """Evaluates as the flags ask, prints the table and writes the files."""
    import numpy as np

    from jaxcat.inference import own_records
    from jaxcat.inference.evaluation import (
        evaluate,
        name_of,
        open_split,
        open_store,
        show,
        summary_of,
        write_evaluation,
    )
    from jaxcat.system.console import Console, said_if_long
    from jaxcat.system.processes import initialize_distributed, process_index

    initialize_distributed(
        arguments.coordinator, num_processes=arguments.num_processes, process_id=arguments.process_id
    )
    console = Console(tables=True, quiet=process_index() != 0)
    classifier = open_run(
        arguments.workdir,
        step=arguments.step,
        engine=arguments.engine,
        calibrated=arguments.calibrated,
        console=console,
    )
    folder, average_over = _results(arguments), arguments.average_over
    if average_over != ORIGINAL:
        console.print(f"average over {average_over}: {average_of(average_over).cost}")
    own, name = arguments.data is None, arguments.split if arguments.data is None else name_of(arguments.data)
    listed = own_records.listed_records(arguments.workdir, classifier.meta)
    with said_if_long("looking through the data", console=console):
        split = open_split(classifier, split=arguments.split, data=arguments.data, moved=arguments.moved, listed=listed)
    store = open_store(classifier, split, console=console, average_over=average_over)
    if own and listed:
        own_records.warn_of_changes(store, listed)
    if not own or (listed and arguments.split == "test"):
        own_records.warn_of_known(store, listed, meta=classifier.meta)
    log_probabilities = evaluate(
        classifier, store, batch_size=arguments.batch_size, console=console, average_over=average_over
    )
    summary = summary_of(classifier, log_probabilities, store.split.labels, average_over=average_over)
    if process_index() != 0:
        return 0
    name += "" if average_over == ORIGINAL else f"-{average_over}"
    show(console, summary, f"{name}, step {classifier.step}")
    written = write_evaluation(
        folder, name, summary=summary, split=store.split, probabilities=np.exp(log_probabilities)
    )
    print(f"written: {written} and {name}.predictions.csv")
    return 0


def _results(arguments: argparse.Namespace) -> Path:
    """The folder to write to. Process 0 checks it, before any image is read, and all processes end if it cannot be."""
    from jaxcat.errors import CheckpointError, JaxcatError
    from jaxcat.inference.evaluation import results_folder
    from jaxcat.system.processes import process_index, values_of_processes

    folder, refusal = arguments.results_dir or arguments.workdir / "evaluation", None
    if process_index() == 0:
        try:
            folder = results_folder(arguments.workdir, arguments.results_dir)
        except JaxcatError as error:
            refusal = error
    if any(values_of_processes(refusal is not None)):
        raise refusal or CheckpointError(f"{folder}: process 0 cannot write there")
    return folder


if __name__ == "__main__":
    cli.run(main)
