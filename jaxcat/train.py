"""Trains an image classifier, or solves its head, as the recipe --config says. The directory
--workdir gets its checkpoints, metrics.jsonl and config.json; a trained one also gets
learning_curve.png. After an interruption, the same command continues.

    python -m jaxcat.train --config configs/folder.py --workdir runs/mine --config.data.dir=DIR
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxcat import flags
from jaxcat.escaping import for_shell
from jaxcat.system import cli


def train(config: ConfigDict, workdir: Path) -> int:
    """Checks `config`, then trains a new run in `workdir` or continues the run there; see `training.loop.train`."""
    flags.validate(config)
    from jaxcat.training import loop

    return loop.train(config, workdir)


def main(argv: Sequence[str]) -> int:
    """Checks the request before JAX is imported, then joins the other processes of the run and trains."""
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.train",
        description=__doc__,
        epilog=flags.describe_settings(min(100, shutil.get_terminal_size().columns - 2)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE[:VARIANT]", help="a recipe: a file of configs/, or your own"
    )
    parser.add_argument("--workdir", required=True, type=cli.path, help="directory of the run; made if missing")
    cli.add_process_flags(parser)
    arguments, overrides = parser.parse_known_args(argv)
    config = flags.read_config(arguments.config, overrides)
    flags.validate(config)

    import jax

    from jaxcat.system.compilation import enable_compilation_cache
    from jaxcat.system.processes import initialize_distributed

    initialize_distributed(
        arguments.coordinator, num_processes=arguments.num_processes, process_id=arguments.process_id
    )
    enable_compilation_cache()
    status = train(config, arguments.workdir)
    if status and jax.process_index() == 0:
        print(f"to continue: python -m jaxcat.train {for_shell(*argv)}")
    return status


if __name__ == "__main__":
    cli.run(main)
