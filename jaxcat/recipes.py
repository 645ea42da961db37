"""What functions called from Python and notebooks share: a recipe with settings, a directory, a prepared process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcat import configs, flags
from jaxcat.config import check_name, flatten
from jaxcat.errors import ConfigError
from jaxcat.system.console import accept_any_text
from jaxcat.system.paths import typed


def config_of(recipe: str | os.PathLike[str] | ConfigDict, settings: Mapping[str, Any]) -> ConfigDict:
    """The config of a recipe with the settings, its names checked and its paths absolute."""
    if isinstance(recipe, ConfigDict):
        config = recipe.copy_and_resolve_references()
    elif isinstance(recipe, (str, os.PathLike)):
        config = configs.execute(os.fspath(recipe))
    else:
        raise ConfigError(f"recipe {recipe!r}: must be the name or path of a recipe, or a ConfigDict")
    names = flatten(config)
    for name in settings:
        check_name(str(name), names)
    with config.unlocked(), config.ignore_type():  # types are checked with the other values
        config.update_from_flattened_dict({name: _plain(value) for name, value in settings.items()})
    return flags.resolve_paths(config)


def _plain(value: Any) -> Any:
    """Numbers of NumPy and paths as the plain values that settings have."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def workdir_of(workdir: str | os.PathLike[str]) -> Path:
    """The absolute path of a directory. Raises ConfigError if it is no path."""
    try:
        return typed(workdir)
    except ConfigError as error:
        raise ConfigError(f"workdir {error}") from error


def prepare_process() -> None:
    """Does what a command does before it computes; keeps the program's own choice of a compilation cache."""
    accept_any_text(sys.stdout, sys.stderr)

    import jax

    from jaxcat.system.compilation import enable_compilation_cache
    from jaxcat.system.processes import initialize_distributed

    initialize_distributed()
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        enable_compilation_cache()
