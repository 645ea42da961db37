"""The thin front of every command: flags in, exit status out, one line for anything a user can cause."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from jaxcat.config import check_name, flatten
from jaxcat.errors import ConfigError, JaxcatError


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose complaints are one line long; argparse already exits with 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """The flags by which the processes of one command find each other; see `sharding.initialize_distributed`."""
    several = parser.add_argument_group("several processes", "needed only where JAX does not detect the cluster itself")
    several.add_argument("--coordinator", default="", metavar="HOST:PORT", help="of process 0; or auto")
    several.add_argument("--num-processes", type=int)
    several.add_argument("--process-id", type=int)


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> None:
    """Call `main(arguments)` and leave the process with the status it returns, or that its error carries."""
    logging.getLogger("absl").addFilter(_not_about_items)
    together = False  # whether the other processes of this run leave too
    try:
        status = main(sys.argv[1:] if argv is None else argv) or 0
        together = True
    except JaxcatError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        with contextlib.suppress(OSError):
            sys.stdout.close()
        status = 0
    except Exception as error:
        sharding = sys.modules.get("jaxcat.sharding")  # a command that does without JAX has no other process to lose
        reason = sharding and sharding.lost_process(error)
        if reason:
            print(
                f"error: another process of this run has ended or cannot be reached ({reason}); its own output says "
                "why. The same command in every process continues from the last checkpoint",
                file=sys.stderr,
            )
        elif _one_of_several():
            traceback.print_exc()
        else:
            raise
        status = 1
    if not together and _one_of_several():
        # JAX would wait for the others at exit, and they for this one; the closed connections tell them at once
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the reader of our output may have gone
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _not_about_items(record: logging.LogRecord) -> bool:
    """False for Orbax's warning that an item of a checkpoint lacks a file that only whole checkpoints have."""
    return not record.getMessage().startswith("Metadata file does not exist")


def _one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def read_config(specification: str, overrides: Sequence[str]) -> ConfigDict:
    """The config of `FILE.py[:VARIANT]` with `--config.a.b=value` applied.

    Raises:
        ConfigError: no such file or variant, a name that is not a setting, or a value of another type.
    """
    path = specification.partition(":")[0]
    if not Path(path).is_file():
        raise ConfigError(f"--config {path}: no such file; configs/ in the repository has the ones shipped")
    config = _parsed(specification, [])
    names = flatten(config)
    for override in overrides:
        if setting := re.match(r"--?(?:no)?config\.([^=]+)", override):
            check_name(setting[1], names)
    return resolve_paths(_parsed(specification, overrides) if overrides else config)


def _parsed(specification: str, overrides: Sequence[str]) -> ConfigDict:
    values, line = flags.FlagValues(), ["jaxcat", f"--config={specification}", *overrides]
    try:
        config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=line)
        rest, config = values(line), values.config
        config.items()  # raises what opening a file has raised in get_config
    except JaxcatError:
        raise
    except Exception as error:  # a config file is a program of its user's
        raise ConfigError(f"{' '.join(['--config', specification, *overrides])}: {_said(error)}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"--config {specification}: get_config returns {config!r}, not a ConfigDict")
    if len(rest) > 1:
        raise ConfigError(f"{rest[1]!r} is not understood: settings are written --config.name=value")
    return config


# What Python and absl say of a value of another type → what the setting wants.
WANTED = {
    ": invalid literal for int()": "a whole number",
    ": could not convert string to float": "a number",
    ": ('Non-boolean argument": "True or False",
}


def _said(error: Exception) -> str:
    """What is wrong with a config file or the value of a setting, in one line."""
    text = " ".join(str(error).split())
    if not isinstance(error, flags.Error):
        return f"{type(error).__name__}: {text}"
    for python, words in WANTED.items():
        if text.startswith("flag --config.") and python in text:
            return f"{text.partition(python)[0]}: wants {words}"
    return text


def resolve_paths(config: ConfigDict) -> ConfigDict:
    """Make the paths in a config absolute, so that it means the same from another directory later."""
    from jaxcat.weights.registry import REGISTRY  # brings JAX, which commands without a config need not wait for

    for name in ("data.dir", "model.weights", "init_from"):
        section, _, key = name.rpartition(".")
        owner = config.get(section, {}) if section else config
        value = owner.get(key, "")
        if name == "model.weights" and value in REGISTRY:  # some published names have a slash
            continue
        if not isinstance(value, str) or not value or "://" in value:  # gs:// and the like stay as they are
            continue
        try:
            there = Path(value).exists()
        except OSError as error:
            raise ConfigError(f"--config.{name}={value[:60]}…: {error.strerror}") from error
        if there or "/" in value:
            owner[key] = os.path.abspath(os.path.expanduser(value))
    return config
