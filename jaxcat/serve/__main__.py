"""python -m jaxcat.serve --workdir DIR [--port 8765]

A local page in your browser: drop images on it, or use the camera, and see the classes, how sure the classifier is,
and where it looked. Corrections that you agree to keep go to DIR/corrections, and an exact head learns from them in
seconds, in a new run beside DIR.

Only this machine reaches it, and only with the token in the address that is printed. Programs send images to
POST /predict with the token from the file that is named; docs/serve.md has examples.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence

from jaxcat.errors import ConfigError
from jaxcat.extras import install
from jaxcat.inference.run_flags import add_run_flags
from jaxcat.system import cli

PACKAGES = ("starlette", "uvicorn")
PORT = 8765


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=cli.path, help="directory of a training run")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: one that is free")
    parser.add_argument("--host", default="127.0.0.1", help="another one lets other machines in; default: 127.0.0.1")
    parser.add_argument(
        "--token-file", type=cli.path, metavar="FILE", help="a token that you chose, in a file that only you can read"
    )
    add_run_flags(parser)
    parser.add_argument("--most-mb", type=int, default=32, metavar="N", help="size of an uploaded image; default: 32")
    parser.add_argument(
        "--most-megapixels", type=int, default=64, metavar="N", help="size of a decoded image; default: 64"
    )
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port < 2**16:
        parser.error(f"--port {arguments.port}: must be 0 to 65535")
    if arguments.most_mb < 1 or arguments.most_megapixels < 1:
        parser.error("--most-mb and --most-megapixels must be at least 1")
    return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    """Checks the request before anything is loaded, then serves."""
    if lacking := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"jaxcat.serve needs {', '.join(lacking)}: {install('serve')}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notices are no concern of the user
    from jaxcat.serve import server
    from jaxcat.serve.answers import Limits

    server.check_host(arguments.host, token=arguments.token_file is not None)
    token = server.read_token(arguments.token_file) if arguments.token_file else ""
    return server.serve(
        arguments.workdir,
        host=arguments.host,
        port=arguments.port,
        step=arguments.step,
        engine=arguments.engine,
        calibrated=arguments.calibrated,
        limits=Limits(arguments.most_mb * 2**20, arguments.most_megapixels * 10**6),
        token=token,
    )


if __name__ == "__main__":
    cli.run(main)
