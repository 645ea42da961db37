"""The commands of jaxcat: `python -m jaxcat NAME …` and `jaxcat NAME …` do what `python -m jaxcat.NAME …` does."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from jaxcat.errors import ConfigError
from jaxcat.system import cli
from jaxcat.wording import did_you_mean

# Name → what it does. The command is `main` of the module of that name, or of that package's `__main__`, which is
# imported only when it is used.
COMMANDS = {
    "train": "train a classifier on your images, or continue a run",
    "evaluate": "measure a trained classifier on every image of a split, or of another folder",
    "predict": "classify images",
    "study": "find out what your images can tell: blocks to use, accuracy, labels that look wrong, copies",
    "check": "look through a folder of images before training",
    "cache": "show what is kept on disk, and free space",
}


def main(argv: Sequence[str]) -> int | None:
    """Runs the command that `argv` names; without a command, lists all of them."""
    name, *arguments = argv or ["--help"]
    if name in ("-h", "--help", "help"):
        print(listing())
        return 0
    if name == "--version":
        print(f"jaxcat {importlib.metadata.version('jaxcat')}")
        return 0
    if name not in COMMANDS:
        names = ", ".join(COMMANDS)
        raise ConfigError(f"{name} is no command of jaxcat; these are: {names}{did_you_mean(name, COMMANDS)}")
    module = "jaxcat.study.__main__" if name == "study" else f"jaxcat.{name}"
    return importlib.import_module(module).main(arguments)


def listing() -> str:
    """The text of `--help`: every command with what it does."""
    width = max(map(len, COMMANDS)) + 2
    lines = "\n".join(f"  {name:<{width}}{meaning}" for name, meaning in COMMANDS.items())
    return f"usage: jaxcat COMMAND …\n\n{lines}\n\n`jaxcat COMMAND --help` says more"


def console() -> None:
    """The console script `jaxcat`."""
    cli.run(main, sys.argv[1:])


if __name__ == "__main__":
    console()
