"""Configurations: the default, one completed from a checkpoint, and what differs between two.

The files in configs/ start from `default()` and change what differs. settings/ has the table of all settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxcat.errors import ConfigError
from jaxcat.settings import SETTINGS
from jaxcat.wording import meant


def default() -> ConfigDict:
    """A new configuration with every setting."""
    return _filled(ConfigDict(), {name: setting.default for name, setting in SETTINGS.items()})


def completed(stored: Mapping[str, Any]) -> ConfigDict:
    """The configuration of a checkpoint; settings that it lacks get their value `before`."""
    return _filled(ConfigDict(stored), {name: setting.before for name, setting in SETTINGS.items()})


def _filled(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        if section and section not in config:
            config[section] = ConfigDict()
        owner = config[section] if section else config
        if isinstance(owner, ConfigDict) and key not in owner:
            owner[key] = value
    return config


def flatten(config: ConfigDict) -> dict[str, Any]:
    """All settings by their full names: `{"data.image_size": 299, …}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = {f"{key}.{k}": v for k, v in flatten(value).items()} if isinstance(value, ConfigDict) else {key: value}
        flat.update(inner)
    return flat


def difference(saved: ConfigDict, asked: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The settings that `asked` would change but may not change on resume: name → (value saved, value asked for)."""
    old, new = flatten(saved), flatten(asked)
    return {
        name: (old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not (name in SETTINGS and SETTINGS[name].may_change)
    }


def check_stored(config: ConfigDict) -> None:
    """Checks the names, types, bounds and fixed choices of a configuration, also of one from disk.

    Raises:
        ConfigError: names the flag, the value received and what is allowed.
    """
    values = flatten(config)
    for name in sorted(values.keys() | SETTINGS.keys()):
        check_name(name, SETTINGS)
        if name not in values:
            raise ConfigError(f"--config.{name} is missing: start your config file from jaxcat.config.default()")
        if problem := SETTINGS[name].problem(values[name]):
            shown = repr(values[name]) if "of type" in problem else values[name]
            raise ConfigError(f"--config.{name}={shown}: {problem}")


def check_name(name: str, settings: Iterable[str]) -> None:
    """Raises ConfigError unless `name`, such as "optim.learning_rate", is one of `settings`."""
    if name not in settings:
        near = meant(name, settings)
        raise ConfigError(f"--config.{name} is not a setting{f'; did you mean {near}?' if near else ''}")


def check_variant(variant: str, variants: Sequence[str]) -> None:
    """Raises ConfigError unless the config file has the variant that `FILE.py:VARIANT` names."""
    if variant not in variants:
        raise ConfigError(f"--config: no variant {variant!r}; this file has {', '.join(variants)}")
