"""The flags --engine and --calibrated of the commands that use a run."""

from __future__ import annotations

import argparse

from jaxcat.bottlenecks.engines.names import AUTO, ENGINES

HELP = "what computes; auto (default): the run's engine if it is ready here or images are many, else xla"


def add_engine_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag; `choice.EngineChoice` says what its values mean."""
    parser.add_argument("--engine", default=AUTO, choices=(AUTO, *ENGINES), help=HELP)


def add_calibrated_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag; `jaxcat.runs.calibration` says what it uses."""
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="divide the logits by the temperature that python -m jaxcat.report --calibrate fitted (a trained head)",
    )
