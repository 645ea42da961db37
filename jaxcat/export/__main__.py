"""python -m jaxcat.export --workdir DIR --format FORMAT --output PATH [--weights float32|float16|int8] [--step best]

Writes a trained classifier as a file for other programs, which need no jaxcat. The file is run before it gets its name,
and its answers are compared with jaxcat's; the differences are printed and written into the file. If they are too
large, or float16 or int8 weights change too many answers, nothing is left; --accept keeps a float16 or int8 file that
changes many answers.

docs/export.md has, for each format, the shortest program that uses it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from jaxcat.export.formats import FLOAT32, FORMATS, RUNTIME, SINGLE_FILE, WEIGHTS, format_of
from jaxcat.inference.run_flags import add_run_flags
from jaxcat.system import cli
from jaxcat.system.files import remove_unplaced


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.export",
        description=f"{__doc__}\nformats:\n{_listed()}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=cli.path, required=True, help="directory of a training run")
    parser.add_argument("--format", required=True, help="a name of the list above")
    parser.add_argument("--output", type=cli.path, required=True, metavar="PATH", help="the file or folder to write")
    parser.add_argument(
        "--weights", default=FLOAT32, help="; ".join(f"{name}: {meaning}" for name, meaning in WEIGHTS.items())
    )
    add_run_flags(parser, engine=False)
    parser.add_argument("--accept", action="store_true", help="keep float16 or int8 files that change many answers")
    parser.add_argument("--single-file", action="store_true", help="web: one HTML file instead of a folder")
    parser.add_argument(
        "--runtime", type=cli.path, metavar="PATH", help="web: the npm package of ONNX Runtime Web, if npm is not here"
    )
    arguments = parser.parse_args(argv)
    format_of(arguments.format, arguments.weights, _options(arguments))
    return write(arguments)


def write(arguments: argparse.Namespace) -> int:
    """Exports as the flags ask and says what was written."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notices are no concern of the user
    from jaxcat.export.exporting import export
    from jaxcat.inference.classifier import load
    from jaxcat.system.console import Console, said_if_long

    console = Console(stderr=True)
    with said_if_long("reading the run", console=console):
        classifier = load(arguments.workdir, step=arguments.step, keep_compiled=True, calibrated=arguments.calibrated)
    with _nothing_left(console):
        export(
            classifier,
            arguments.output,
            format=arguments.format,
            weights=arguments.weights,
            accept=arguments.accept,
            console=console,
            **_options(arguments),
        )
    print(f"written: {arguments.output}")
    return 0


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The given options that only some formats take."""
    given = {SINGLE_FILE: arguments.single_file or None, RUNTIME: arguments.runtime}
    return {name: value for name, value in given.items() if value is not None}


@contextlib.contextmanager
def _nothing_left(console: Any) -> Iterator[None]:
    """At SIGINT and SIGTERM, removes what is half written and ends the process at once.

    An exception instead could be lost in TensorFlow, JAX or coremltools, and the export would go on.
    """
    with tempfile.TemporaryDirectory() as folder:

        def ended(number: int, frame: object) -> None:
            remove_unplaced()
            shutil.rmtree(folder, ignore_errors=True)
            console.show_cursor()  # which a progress bar hides
            if number == signal.SIGINT:
                os.write(2, b"interrupted\n")
            os._exit(128 + number)

        before = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM)}
        kept, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = kept
            for number, handler in before.items():
                signal.signal(number, handler)


def _listed() -> str:
    width = max(map(len, FORMATS)) + 2
    return "\n".join(f"  {name:<{width}}{row.meaning} ({', '.join(row.weights)})" for name, row in FORMATS.items())


if __name__ == "__main__":
    cli.run(main)
