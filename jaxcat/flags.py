"""Reads and checks the configuration that a command line asks for; lists all settings for `--help`.

Requests are checked before any work is done. Names are checked against tables in the packages that implement
them; these tables import no framework.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from jaxcat.config import SETTINGS, Setting, check_name, check_stored, flatten, not_one_of
from jaxcat.data.augment import AUGMENTATIONS
from jaxcat.data.division import parse_fold
from jaxcat.data.patterns import Pattern
from jaxcat.data.resizing import RESIZES
from jaxcat.data.sources import SOURCES
from jaxcat.data.table_reading import WITHOUT
from jaxcat.errors import ConfigError, JaxcatError, one_line
from jaxcat.models.backbone import BACKBONES, check_model
from jaxcat.training.optim import OPTIMIZERS, SCHEDULES
from jaxcat.weights.registry import REGISTRY

# Setting → the table of its possible values: value → row with a `meaning`.
TABLES: dict[str, Mapping[str, Any]] = {
    "data.source": SOURCES,
    "data.resize": RESIZES,
    "data.augment": AUGMENTATIONS,
    "model.backbone": BACKBONES,
    "optim.name": OPTIMIZERS,
    "optim.schedule": SCHEDULES,
}


# reading --------------------------------------------------------------------------------------------------------------


def read_config(specification: str, overrides: Sequence[str]) -> ConfigDict:
    """The config that `FILE.py[:VARIANT]` returns, executed once, with the overrides `--config.a.b=value` applied.

    Raises:
        ConfigError: no such file or variant, a name that is not a setting, or a value of another type.
    """
    return overridden(_execute(specification), overrides)


def overridden(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """A config with the overrides `--config.a.b=value` applied and its paths absolute.

    Raises:
        ConfigError: a name that is not a setting, or a value of another type.
    """
    names = flatten(config)
    for override in overrides:
        if setting := re.match(r"--?(?:no)?config\.([^=]+)", override):
            check_name(setting[1], names)
    line, values = ["jaxcat", *overrides], flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, lock_config=True, sys_argv=line)
        rest = values(line)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(_in_plain_words(error)) from error
    if len(rest) > 1:
        raise ConfigError(f"{rest[1]!r} is not understood: settings are written --config.name=value")
    return resolve_paths(config)


def _execute(specification: str) -> ConfigDict:
    """The config that `get_config` of a config file returns."""
    path, colon, variant = specification.partition(":")
    if not os.path.isfile(path):  # Path.is_file raises for some invalid names
        raise ConfigError(f"--config {path}: no such file; the configs of jaxcat are in configs/ of its repository")
    module = types.ModuleType("jaxcat_config_file")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look up the module of their class here
    try:
        exec(compile(Path(path).read_bytes(), path, "exec", dont_inherit=True), module.__dict__)
        config = module.get_config(*([variant] if colon else []))
    except JaxcatError:
        raise
    except Exception as error:  # a config file is the user's own program and may raise anything
        raise ConfigError(f"--config {specification}: {type(error).__name__}: {_text(error)}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"--config {specification}: get_config returns {config!r}, not a ConfigDict")
    return config


# Part of the error of Python or absl for a value of the wrong type → what the setting needs.
WANTED = {
    ": invalid literal for int()": "a whole number",
    ": could not convert string to float": "a number",
    ": ('Non-boolean argument": "True or False",
}


def _in_plain_words(error: Exception) -> str:
    """What is wrong with the value of a setting, in one line."""
    text = _text(error).removeprefix("flag ")
    for python, words in WANTED.items():
        if text.startswith("--config.") and python in text:
            return f"{text.partition(python)[0]}: wants {words}"
    return text


def _text(error: Exception) -> str:
    return " ".join(str(error).split())  # unlike `one_line`, keeps file names and shortens nothing


def resolve_paths(config: ConfigDict) -> ConfigDict:
    """Makes the paths in a config absolute, so that they stay valid from another working directory."""
    values = flatten(config)
    for name in ("data.dir", "data.table", "model.weights", "init_from"):
        value = values.get(name)
        if not isinstance(value, str) or not value or "://" in value:  # gs:// and the like stay as they are
            continue
        if name == "model.weights" and value in REGISTRY:  # some published names have a slash
            continue
        try:
            there = Path(value).exists()
        except OSError as error:
            raise ConfigError(f"--config.{name}={value[:60]}…: {one_line(error)}") from error
        if there or "/" in value:
            config.update_from_flattened_dict({name: os.path.abspath(os.path.expanduser(value))})
    return config


# checking -------------------------------------------------------------------------------------------------------------


def validate(config: ConfigDict) -> None:
    """Checks every setting and every combination before any work is done; does not change `config`.

    Raises:
        ConfigError: names the flag, the value received and what is allowed.
    """
    check_stored(config)
    values = flatten(config)
    for name, table in TABLES.items():
        if problem := not_one_of(values[name], table):
            raise ConfigError(f"--config.{name}={values[name]}: {problem}")
    check_model(config.model, image_size=config.data.image_size)
    _check_combinations(config)


def _check_combinations(config: ConfigDict) -> None:
    data, model, optim = config.data, config.model, config.optim
    if data.source == "folder" and not data.dir:
        raise ConfigError("--config.data.dir is empty: name the folder of images, DIR/train/CLASS/… or DIR/CLASS/…")
    check_labels(config)
    for name in ("train_dir", "validation_dir", "test_dir"):
        if data[name] and data.source != "folder":
            raise ConfigError(
                f"--config.data.{name}={data[name]} names a folder of --config.data.source=folder; the source is "
                f"{data.source}"
            )
    if data.min_per_class and data.source in ("digits", "glyphs"):
        raise ConfigError(
            f"--config.data.min_per_class={data.min_per_class} is not for --config.data.source={data.source}, whose "
            "classes all have as many images; set it to 0"
        )
    if data.source == "tfds" and not data.name:
        raise ConfigError("--config.data.name is empty: name the TFDS data set, for example cats_vs_dogs")
    if OPTIMIZERS[optim.name].needs_decay and not optim.weight_decay:
        raise ConfigError(
            f"--config.optim.name={optim.name} needs --config.optim.weight_decay above 0; without decay use adam"
        )
    if model.weights in REGISTRY and (owner := REGISTRY[model.weights].backbone) != model.backbone:
        raise ConfigError(
            f"--config.model.weights={model.weights} are weights of {owner}, not of --config.model.backbone="
            f"{model.backbone}: set --config.model.backbone={owner}, or choose other weights"
        )
    check_division(config)
    if config.bottleneck.views and model.train_from == BACKBONES[model.backbone].stages[0]:
        raise ConfigError(
            f"--config.bottleneck.views={config.bottleneck.views} keeps the output of frozen blocks, but "
            f"--config.model.train_from={model.train_from} freezes no block: set --config.bottleneck.views=0"
        )


def check_labels(config: ConfigDict) -> None:
    """Checks where labels and groups come from. Raises ConfigError for settings that another source needs."""
    data = config.data
    if data.source == "table" and not data.table:
        raise ConfigError("--config.data.table is empty: name the CSV, TSV or Parquet file that lists the images")
    if data.source == "table" and "://" in data.table:
        raise ConfigError(f"--config.data.table={data.table}: a URL; download the table and name the file")
    for name in ("table", "path_column", "label_column", "split_column", "group_column"):
        if data.source != "table" and data[name]:
            raise ConfigError(f"--config.data.{name}={data[name]} needs --config.data.source=table")
    for name, sources in (("label_pattern", ("folder",)), ("group_pattern", ("folder", "table"))):
        if data[name] and data.source not in sources:
            raise ConfigError(f"--config.data.{name}={data[name]} needs --config.data.source={' or '.join(sources)}")
        if data[name]:
            Pattern(name, data[name])
    if data.group_pattern and data.group_column not in ("", WITHOUT):
        raise ConfigError("--config.data.group_pattern and --config.data.group_column: set one of them")


def check_division(config: ConfigDict) -> None:
    """Checks how validation is made of train. Raises ConfigError if a setting needs a validation that there is not."""
    data, stop = config.data, config.stop
    if data.fold:
        parse_fold(data.fold)
    elif data.fold_over != "train":
        raise ConfigError(f"--config.data.fold_over={data.fold_over} needs --config.data.fold=K/N")
    if data.validation_fraction or data.fold or (data.source == "tfds" and data.validation):
        return
    needs = {
        "data.validation_size": bool(data.validation_size),
        "stop.accuracy": bool(stop.accuracy) and stop.on == "validation",
        "stop.patience": bool(stop.patience),
    }
    for name in (name for name, needed in needs.items() if needed):
        instead = ", compare the accuracy of train with --config.stop.on=train" if name == "stop.accuracy" else ""
        raise ConfigError(
            f"--config.{name}={flatten(config)[name]} needs validation, but --config.data.validation_fraction=0 holds "
            f"nothing out: set {name} to 0{instead}, or hold some of train out, such as "
            "--config.data.validation_fraction=0.2 (which changes nothing if the data have a validation split)"
        )


# showing --------------------------------------------------------------------------------------------------------------

MEANING_FROM = 33  # the column where meanings begin; the longest name with its default is data.validation_fraction=0.2


def describe_settings(width: int) -> str:
    """All settings by section, with meaning, unit, default and choices, in lines of at most `width` columns."""
    lines = textwrap.wrap("settings, given as --config.NAME=VALUE, with their defaults; * may change on resume:", width)
    section = None
    for name, setting in SETTINGS.items():
        if name.rpartition(".")[0] != section:
            section = name.rpartition(".")[0]
            lines.append("")
        lines += _describe(name, setting, width=width)
    return "\n".join(lines)


def _describe(name: str, setting: Setting, *, width: int) -> list[str]:
    """The lines about one setting: its default and meaning side by side, its choices below."""
    default = '""' if setting.default == "" else setting.default
    shown = f"{'*' if setting.may_change else ' '} {name}={default}"
    meaning = f"{setting.meaning} [{setting.unit}]" if setting.unit else setting.meaning
    margin = " " * MEANING_FROM
    lines = _wrapped(meaning, width, first=shown.ljust(MEANING_FROM), later=margin)
    for choice, what in choices_of(name).items():
        lines += _wrapped(f"{choice}: {what}", width, first=margin + "  ", later=margin + "    ")
    return lines


def choices_of(name: str) -> dict[str, str]:
    """Value → meaning, for a setting with a fixed list of values; for `model.weights`, without files."""
    if name == "model.weights":
        published = {spec.name: f"{spec.backbone}, {spec.licence}" for spec in REGISTRY.values()}
        return {"none": "start from random numbers"} | published
    return dict(SETTINGS[name].choices) or {value: row.meaning for value, row in TABLES.get(name, {}).items()}


def _wrapped(text: str, width: int, *, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, break_long_words=False
    )
