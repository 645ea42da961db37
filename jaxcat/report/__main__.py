"""python -m jaxcat.report --workdir DIR [--split test|validation] [--data DIR2 | --moved-data DIR3] [--compare DIR…]
python -m jaxcat.report --weights NAME_OR_FILE --data DIR2 --output DIR3

Makes one page, DIR/report/index.html, that shows what a classifier learned, where it fails and why: its accuracy, the
classes it confuses, images with where the network looked, whether its probabilities can be trusted, and the data.
The page is one file without scripts or images from elsewhere: a double click opens it, and it can be sent on.

Its figures are those of `python -m jaxcat.evaluate`. Without --split, they are of the test images if the run has any,
else of the validation images. If the cache has the bottlenecks of all of them, they are read.

--compare DIR… measures other runs on the same images. --calibrate fits a temperature for the probabilities of a trained
head and keeps it in DIR/calibration.json, which predict, evaluate, export and this command use with --calibrated.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from jaxcat.inference.run_flags import add_data_flags, add_run_flags
from jaxcat.system import cli


def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    return make_page(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--workdir", type=cli.path_as_typed, metavar="DIR", help="directory of a training run")
    origin.add_argument("--weights", default="", metavar="NAME", help="published weights: a name, or a whole file")
    add_data_flags(parser, cli.path_as_typed, split="")
    parser.add_argument("--top", type=int, default=24, metavar="N", help="images in each list; default: 24")
    parser.add_argument(
        "--compare",
        type=cli.path_as_typed,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="other runs, measured on the same images",
    )
    parser.add_argument("--block", default="", metavar="NAME", help="block of the heat maps; default: the last read")
    parser.add_argument("--output", type=cli.path_as_typed, metavar="DIR4", help="write here, not to DIR/report")
    add_run_flags(parser)
    parser.add_argument("--calibrate", action="store_true", help="fit the temperature and write DIR/calibration.json")
    return parser


def make_page(arguments: argparse.Namespace) -> int:
    """Makes the report that the flags ask for and says where it lies."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notices are no concern of the user
    from jaxcat.report import report
    from jaxcat.system.console import Console

    path = report(**vars(arguments), console=Console(stderr=True))
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    cli.run(main)
