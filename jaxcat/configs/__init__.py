"""The shipped recipes, importable as `jaxcat.configs.NAME`; how a config file is found by name or path, and executed.

In the repository their files are in configs/. A wheel has them in this package, so that an installation has them too.
"""

from __future__ import annotations

import inspect
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxcat.errors import ConfigError, JaxcatError
from jaxcat.system.paths import typed
from jaxcat.wording import did_you_mean, printable

_REPOSITORY = Path(__file__).resolve().parents[2] / "configs"
if not (Path(__file__).parent / "folder.py").is_file() and _REPOSITORY.is_dir():
    __path__.append(str(_REPOSITORY))


def shipped() -> dict[str, Path]:
    """Name → file of every shipped recipe, sorted by name."""
    found = {path.stem: path for folder in __path__ for path in Path(folder).glob("[a-z]*.py")}
    return dict(sorted(found.items()))


def find(specification: str) -> tuple[Path, str | None]:
    """The config file and the variant that `--config NAME[:VARIANT]` or `--config FILE[:VARIANT]` asks for.

    A name without .py is a shipped recipe. In a path, a colon may be part of a name: the longest part before a colon
    that is a file is taken.

    Raises:
        ConfigError: there is no such recipe and no such file.
    """
    name, colon, variant = specification.partition(":")
    recipes = shipped()
    if name in recipes:
        return recipes[name], variant if colon else None
    path = specification
    for _ in range(specification.count(":") + 1):
        if path and os.path.isfile(place := _place(path)):  # Path.is_file raises for some invalid names
            return place, specification[len(path) + 1 :] if len(path) < len(specification) else None
        path = path.rpartition(":")[0]
    raise ConfigError(f"--config {printable(specification)}: {_missing(specification, recipes)}")


def _place(path: str) -> Path:
    try:
        return typed(path)
    except ConfigError as error:
        raise ConfigError(f"--config {error}") from error


def _missing(specification: str, recipes: dict[str, Path]) -> str:
    """Why a specification names no config file, and what would."""
    path = specification if os.path.isdir(_place(specification)) else specification.partition(":")[0]
    names = ", ".join(recipes)
    if path and os.path.isdir(_place(path)):
        return f"is a directory; give a config file in it, or a shipped recipe: {names}"
    if Path(path).stem in recipes:
        return f"no such file; the shipped recipe of that name is --config {Path(path).stem}"
    return f"no such file and no such recipe; these are shipped: {names}{did_you_mean(path, recipes)}"


def execute(specification: str) -> ConfigDict:
    """The config that `get_config` of a config file returns; the file is executed once.

    Raises:
        ConfigError: there is no such file, it has no `get_config` for this call, or it fails.
    """
    path, variant = find(specification)
    module = types.ModuleType("jaxcat_config_file")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look up the module of their class here
    where = f"--config {printable(specification)}"
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
        _check_call(getattr(module, "get_config", None), variant, where=where)
        config = module.get_config(*([] if variant is None else [variant]))
    except JaxcatError:
        raise
    except Exception as error:  # a config file is the user's own program and may raise anything
        text = " ".join(str(error).split())  # unlike `one_line`, keeps file names and shortens nothing
        raise ConfigError(f"{where}: {type(error).__name__}: {text}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{where}: get_config returns {config!r}, not a ConfigDict")
    return config


def _check_call(get_config: Any, variant: str | None, *, where: str) -> None:
    """Raises ConfigError unless `get_config` is a function that can be called with this variant, or without one."""
    if not callable(get_config):
        raise ConfigError(
            f"{where}: this file defines no function get_config: write one that changes and returns "
            "jaxcat.config.default(), as the shipped recipes do"
        )
    if variant is None and not _takes(get_config):
        raise ConfigError(f"{where}: get_config of this file needs a variant: --config FILE:VARIANT")
    if variant is not None and not _takes(get_config, variant):
        raise ConfigError(f"{where}: get_config of this file takes no variant: leave out :{variant}")


def _takes(function: Callable, *arguments: str) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a built-in without a signature
        return True
    return True
