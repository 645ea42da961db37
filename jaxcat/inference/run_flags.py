"""The flags that several commands which use a run have, in the same words, and the run that they name."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcat.bottlenecks.engines.names import AUTO, ENGINES

if TYPE_CHECKING:
    from jaxcat.inference.classifier import Classifier
    from jaxcat.system.console import Console

SPLITS = ("train", "validation", "test")  # those of `data.records`, which imports what --help can do without
ENGINE = "what computes; auto (default): the run's engine if it is ready here or images are many, else xla"


def add_run_flags(parser: argparse.ArgumentParser, *, engine: bool = True) -> None:
    """Adds which step of the run is used and how it computes: --step, --engine and --calibrated.

    `choice.EngineChoice` says what the values of --engine mean, `jaxcat.runs.calibration` what --calibrated uses.
    """
    parser.add_argument("--step", default="best", help="best (default), latest, or the number of a step")
    if engine:
        parser.add_argument("--engine", default=AUTO, choices=(AUTO, *ENGINES), help=ENGINE)
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="divide the logits by the temperature that python -m jaxcat.report --calibrate fitted (a trained head)",
    )


def open_run(workdir: Path, *, step: str | int, engine: str, calibrated: bool, console: Console) -> Classifier:
    """The classifier of a run, as the flags of `add_run_flags` say. Raises what `classifier.load` raises."""
    from jaxcat.inference.classifier import load
    from jaxcat.system.console import said_if_long

    with said_if_long("reading the run", console=console):
        return load(workdir, step, engine=engine, keep_compiled=True, calibrated=calibrated)


def open_published(weights: str, *, console: Console) -> Classifier:
    """The classifier of published weights. Raises what `published.published_classifier` raises."""
    from jaxcat.inference.published import published_classifier
    from jaxcat.system.compilation import enable_compilation_cache
    from jaxcat.system.console import said_if_long

    enable_compilation_cache()
    with said_if_long("reading weights", console=console):
        return published_classifier(weights)


def add_data_flags(parser: argparse.ArgumentParser, path: Callable[[str], Path], *, split: str) -> None:
    """Adds which images are measured: --split, by default `split`; --data or --moved-data, which `path` reads."""
    default = split or "test if there is one, else validation"
    parser.add_argument("--split", default=split, choices=SPLITS, help=f"default: {default}")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--data",
        type=path,
        metavar="DIR2",
        help="measure on all of DIR2/CLASS/… (or an archive, or a table), not on the run's data",
    )
    where.add_argument(
        "--moved-data",
        dest="moved",
        type=path,
        metavar="DIR3",
        help="the run's own data are now here; every image must be there",
    )


def add_batch_size_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --batch-size; the command checks that it is at least 1."""
    parser.add_argument("--batch-size", type=int, default=32, help="images in a batch; default: 32")
