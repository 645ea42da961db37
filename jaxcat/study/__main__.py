"""Answers, from your images alone: which blocks of the network and which image size to take, how
sure the accuracy is, whether more images would help, which labels look wrong, and which images are
nearly the same. The directory --workdir gets study.json, tables (.csv), plots (.svg, .png) and
recommended.py, a config file of what the study found best.

    python -m jaxcat.study --config configs/folder.py --workdir studies/mine --config.data.dir=DIR

The images go through the frozen network once. What is cached is not computed again, so after an
interruption the same command continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jaxcat import flags
from jaxcat.errors import ConfigError
from jaxcat.escaping import for_shell
from jaxcat.study import command
from jaxcat.system import cli


def main(argv: Sequence[str]) -> int:
    """Checks the request before JAX is imported, then makes the study."""
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:VARIANT]",
        help="a recipe whose head is solved, such as folder or tfds",
    )
    parser.add_argument("--workdir", required=True, type=cli.path, help="directory of the study; made if missing")
    parser.add_argument("--sizes", default="", metavar="N,N,…", help="image sizes to compare, in pixels a side")
    parser.add_argument("--train", action="store_true", help="train the winner at once, in WORKDIR/run")
    arguments, overrides = parser.parse_known_args(argv)
    config, sizes = flags.read_config(arguments.config, overrides), _sizes(arguments.sizes)
    command.check(config, sizes)

    from jaxcat.system.compilation import enable_compilation_cache

    enable_compilation_cache()
    status = command.execute(config, arguments.workdir, sizes=sizes, train=arguments.train)
    if status:
        print(f"to continue: python -m jaxcat.study {for_shell(*argv)}")
    return status


def _sizes(text: str) -> list[int]:
    """The numbers of `--sizes 176,224`."""
    try:
        return [int(size) for size in text.split(",") if size.strip()]
    except ValueError as error:
        raise ConfigError(f"--sizes {text}: must be whole numbers with commas between them, such as 176,224") from error


if __name__ == "__main__":
    cli.run(main)
