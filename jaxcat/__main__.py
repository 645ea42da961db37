"""The commands of jaxcat: `python -m jaxcat NAME …` and `jaxcat NAME …` do what `python -m jaxcat.NAME …` does."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence

from jaxcat.errors import ConfigError
from jaxcat.system import cli
from jaxcat.wording import did_you_mean

# Name → what it does. The command is `main` of the module of that name, or of `__main__` in the package of that name,
# which is imported only when it is used.
COMMANDS = {
    "train": "train a classifier on your images, or continue a run",
    "evaluate": "measure a trained classifier on every image of a split, or of another folder",
    "predict": "classify images",
    "study": "find out what your images can tell: blocks to use, accuracy, labels that look wrong, copies",
    "report": "one page that shows what a classifier learned, where it fails and why",
    "export": "write a trained classifier as a file for other programs",
    "serve": "a local page that classifies images, and learns from corrections",
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
    return importlib.import_module(_module_of(name)).main(arguments)


def _module_of(name: str) -> str:
    found = importlib.util.find_spec(f"jaxcat.{name}")
    is_package = found is not None and found.submodule_search_locations is not None
    return f"jaxcat.{name}.__main__" if is_package else f"jaxcat.{name}"


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
