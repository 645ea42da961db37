"""Reads and checks the configuration that a command line asks for; lists all settings for `--help`.

Requests are checked before any work is done. Names are checked against tables in the packages that implement
them; these tables import no framework.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from jaxcat import configs
from jaxcat.bottlenecks.engines.names import AUTO, CHOICES, XLA, unsupported
from jaxcat.config import check_name, check_stored, flatten
from jaxcat.data.augmentation.table import AUGMENTATIONS
from jaxcat.data.division import parse_fold
from jaxcat.data.images.resizing import RESIZES
from jaxcat.data.indexing.patterns import Pattern
from jaxcat.data.indexing.table_columns import WITHOUT
from jaxcat.data.sources import SOURCES
from jaxcat.errors import ConfigError
from jaxcat.models.backbone import BACKBONES, check_model, check_names
from jaxcat.models.completion import widest
from jaxcat.setting import Setting
from jaxcat.settings import SETTINGS
from jaxcat.system.files import cache_dir
from jaxcat.system.paths import URL, typed
from jaxcat.training.mixing import MIXES
from jaxcat.training.optim import OPTIMIZERS, SCHEDULES
from jaxcat.training.requests import check_exact, check_optim
from jaxcat.training.stages import check_each, check_stages
from jaxcat.weights.registry import REGISTRY
from jaxcat.wording import meant, not_one_of

# Setting → the table of its possible values: value → row with a `meaning`.
TABLES: dict[str, Mapping[str, Any]] = {
    "data.source": SOURCES,
    "data.resize": RESIZES,
    "data.augment": AUGMENTATIONS,
    "model.backbone": BACKBONES,
    "bottleneck.engine": CHOICES,
    "optim.name": OPTIMIZERS,
    "optim.schedule": SCHEDULES,
    "optim.mix": MIXES,
}


# reading --------------------------------------------------------------------------------------------------------------


def read_config(specification: str, overrides: Sequence[str]) -> ConfigDict:
    """The config of `NAME[:VARIANT]` or `FILE.py[:VARIANT]`, with the overrides `--config.a.b=value` applied.

    Raises:
        ConfigError: no such file or variant, a name that is not a setting, or a value of another type.
    """
    return overridden(configs.execute(specification), overrides)


def overridden(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """A config with the overrides `--config.a.b=value` applied and its paths absolute.

    Raises:
        ConfigError: a name that is not a setting, or a value of another type.
    """
    names = flatten(config)
    for override in overrides:
        if setting := re.match(r"--?(?:no)?config\.([^=]+)", override):
            check_name(setting[1], names)
        elif option := re.match(r"--?([A-Za-z][\w.-]*)(=.*)?$", override, re.DOTALL):
            raise ConfigError(_unknown_option(option[1], option[2] or "=VALUE"))
    line, values = ["jaxcat", *overrides], flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, lock_config=True, sys_argv=line)
        rest = values(line)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(_in_plain_words(error)) from error
    if len(rest) > 1:
        raise ConfigError(f"{rest[1]!r} is not understood: settings are written --config.NAME=VALUE")
    return resolve_paths(config)


def _unknown_option(name: str, value: str) -> str:
    """What to write in place of an option that does not exist, such as `--epochs=3`."""
    setting = meant(name.replace("-", "_"), SETTINGS)
    advice = f"did you mean --config.{setting}{value}?" if setting else "--help lists all of them"
    return f"--{name} is not an option: settings are written --config.NAME=VALUE; {advice}"


# Part of the error of Python or absl for a value of the wrong type → what the setting needs.
WANTED = {
    ": invalid literal for int()": "a whole number",
    ": could not convert string to float": "a number",
    ": ('Non-boolean argument": "True or False",
}


def _in_plain_words(error: Exception) -> str:
    """What is wrong with the value of a setting, in one line."""
    text = " ".join(str(error).split()).removeprefix("flag ")
    for python, words in WANTED.items():
        if text.startswith("--config.") and python in text:
            return f"{text.partition(python)[0]}: wants {words}"
    return text


def resolve_paths(config: ConfigDict) -> ConfigDict:
    """Makes the paths in a config absolute, so that they stay valid from another working directory."""
    values = flatten(config)
    for name in ("data.dir", "data.table", "data.corrections", "model.weights", "init_from"):
        value = values.get(name)
        if not isinstance(value, str) or not value:
            continue
        if name == "model.weights" and _is_a_name(value):
            continue
        if name == "data.dir" and values.get("data.source") == "tfds" and URL.match(value):
            continue  # TFDS itself can read its data sets from a bucket
        try:
            config.update_from_flattened_dict({name: str(typed(value))})
        except ConfigError as error:
            raise ConfigError(f"--config.{name}={error}") from error
    return config


def _is_a_name(weights: str) -> bool:
    """Whether `model.weights` is the name of published weights, `none`, or a mistyped name; else it is a path."""
    if weights == "none" or weights in REGISTRY:
        return True
    return not (os.sep in weights or weights.startswith("~") or URL.match(weights) or os.path.lexists(weights))


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
    check_names(widest(config).model)
    check_stages(config)
    check_each(config, _check_run)
    if config.bottleneck.views:
        cache_dir()  # raises if there is no place for bottlenecks


def _check_run(config: ConfigDict) -> None:
    """Checks the combinations of settings of a run without stages, or of one stage."""
    wanted = widest(config)
    check_exact(config)
    check_model(wanted.model, image_size=wanted.data.image_size)
    _check_combinations(config)


def _check_combinations(config: ConfigDict) -> None:
    data, model = config.data, config.model
    if data.source == "folder" and not data.dir:
        raise ConfigError("--config.data.dir is empty: name the folder of images, DIR/train/CLASS/… or DIR/CLASS/…")
    if 0 < data.grey_bits < 8:
        raise ConfigError(f"--config.data.grey_bits={data.grey_bits}: must be 8 to 16, or 0 to find it from train")
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
            "classes all have the same number of images; set it to 0"
        )
    if data.source == "tfds" and not data.name:
        raise ConfigError("--config.data.name is empty: name the TFDS data set, for example cats_vs_dogs")
    check_optim(config)
    if model.weights in REGISTRY and (owner := REGISTRY[model.weights].backbone) != model.backbone:
        raise ConfigError(
            f"--config.model.weights={model.weights} are weights of {owner}, not of --config.model.backbone="
            f"{model.backbone}: set --config.model.backbone={owner}, or choose other weights"
        )
    check_division(config)
    if config.bottleneck.engine not in (AUTO, XLA) and (why := unsupported(config)):
        raise ConfigError(f"--config.bottleneck.engine={config.bottleneck.engine}: {why}; set it to {XLA}")
    if config.bottleneck.views and model.train_from == BACKBONES[model.backbone].stages[0]:
        raise ConfigError(
            f"--config.bottleneck.views={config.bottleneck.views} keeps the output of frozen blocks, but "
            f"--config.model.train_from={model.train_from} freezes no block: set --config.bottleneck.views=0"
        )


def check_labels(config: ConfigDict) -> None:
    """Checks where labels and groups come from. Raises ConfigError for settings that belong to another source."""
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
    """Checks how validation is taken from train. Raises ConfigError if a setting needs validation and there is none."""
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
    lines = textwrap.wrap(
        "settings, given as --config.NAME=VALUE. Each is shown with its default; the recipe of --config may have "
        "another value, and the command line overrides both. Those with * may change when a run is continued:",
        width,
    )
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
