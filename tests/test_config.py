"""Every setting against every kind of wrong value, and combinations of right ones trained for two steps."""

from __future__ import annotations

import collections
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import small

from jaxcat.config import default
from jaxcat.errors import ConfigError
from jaxcat.flags import choices_of, read_config, validate
from jaxcat.settings import SETTINGS
from jaxcat.training.loop import train

BLOCKS = ("model.cut", "model.train_from", "model.pool_from")  # their values are blocks of the backbone

REPOSITORY = Path(__file__).resolve().parent.parent
VALUES = ("-1", "-0.5", "0", "1e400", "-inf", "nan", "99999999999999999999", "abc", "", "None", "True", "[1]", "1e-320")


def given(name: str, value: str) -> str:
    """The error of a command with `--config.NAME=VALUE`, or "" if it goes on."""
    line = [f"--config.{name}={value}"] + ([] if name == "data.dir" else ["--config.data.dir=images"])
    try:
        validate(read_config(str(REPOSITORY / "configs/folder.py"), line))
    except ConfigError as error:
        return f"exit status {error.exit_status}: {error}"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_wrong_values_of_every_setting_are_one_line_that_names_the_flag(name):
    kind = type(SETTINGS[name].default)
    refused = {value: given(name, value) for value in VALUES}
    for value, error in refused.items():
        if error:
            assert f"--config.{name}" in error, (value, error)
            assert error.startswith("exit status 2: ")
            assert "\n" not in error
    if kind in (int, float):
        for value in ("abc", "", "None", "[1]", "nan", "-inf", "-1"):
            assert refused[value], f"{name}={value} was accepted"
    if kind is bool:
        assert all(refused[value] for value in VALUES if value not in ("True", "0"))
    if (choices_of(name) and name != "model.weights") or name in BLOCKS:
        assert "must be one of" in refused["abc"], "the valid values are named"


def refusal(config) -> str:
    """The error of a config, or "" if it is valid."""
    try:
        validate(config)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_config_file_with_a_wrong_type_is_refused_as_well(name):
    for value in (None, float("nan"), [1], {"a": 1}, object(), -(10**30), b"x"):
        config = default()
        config.data.dir = "images"
        with config.unlocked(), config.ignore_type():
            config.update_from_flattened_dict({name: value})
        assert f"--config.{name}" in refusal(config), value


def test_names_that_are_no_settings():
    for name in ("optim.learning_rat", "nonesuch", "data", "model.cut.deeper", "data.dirr"):
        assert name.split(".")[0] in given(name, "1")


FACTORS = {
    "classes": (2, 3),
    "model.cut": ("stem", "mixed0", "mixed1"),
    "model.train_from": ("head", "stem", "the cut"),
    "model.train_bn": (False, True),
    "model.pool_from": ("cut", "stem"),
    "model.pool": ("avg", "avg_std", "max", "flatten"),
    "model.pool_grid": (1, 2),
    "model.hidden": (0, 5),
    "model.dropout": (0.0, 0.5),
    "model.dtype": ("float32", "bfloat16"),
    "data.augment": ("none", "article", "inception", "digits"),
    "optim.name": ("rmsprop", "adamw", "sgd"),
    "optim.schedule": ("constant", "cosine", "one_cycle"),
    "optim.class_weight": ("none", "balanced"),
    "optim.clip_norm": (0.0, 1.0),
    "optim.label_smoothing": (0.0, 0.1),
    "optim.mix": ("none", "mixup", "cutmix", "mixup_bottlenecks"),
    "optim.average": (0.0, 0.9),
    "model.remat": (False, True),
    "bottleneck.views": (0, 1, 2),
    "bottleneck.dtype": ("float16", "float32"),
}


def combination(row: dict, workdir: Path) -> tuple:
    """(config, or None if it is refused; workdir) of one choice of every factor."""
    config = small.tiny_config()
    config.data.classes = ",".join("0123456789"[: row["classes"]])
    config.data.train_size, config.data.validation_size, config.epochs = 6 * row["classes"], 2 * row["classes"], 1
    config.batch_size, config.model.width = 3 * row["classes"], 1 / 32
    config.optim.weight_decay = 0.01 if row["optim.name"] == "adamw" else 0.0
    settings = {name: value for name, value in row.items() if name != "classes"}
    if row["model.train_from"] == "the cut":
        settings["model.train_from"] = row["model.cut"]
    config.update_from_flattened_dict(settings)
    try:
        validate(config)
    except ConfigError:
        return None, workdir
    return config, workdir


def cost(row: dict) -> float:
    """About how many seconds a row takes, most of them to compile; fitted to measured ones."""
    blocks = 1 + FACTORS["model.cut"].index(row["model.cut"])
    trained = {"head": 0, "the cut": 1, "stem": blocks}[row["model.train_from"]]
    half, mixed = row["model.dtype"] == "bfloat16", row["optim.mix"] != "none"
    return 0.5 + 1.1 * trained + 0.2 * (blocks - trained) + 0.55 * half + 0.9 * mixed


def pairs_of(row: dict) -> set:
    return set(itertools.combinations(sorted(row.items(), key=str), 2))


def accepted(row: dict) -> bool:
    return combination(row, Path())[0] is not None


def pairwise(seed: int = 2) -> list[dict]:
    """Accepted rows in which every pair of values of two factors occurs, as far as it is accepted anywhere.

    Of rows at random those that have most of the missing pairs for their cost; then values are changed at random where
    no pair is lost and the row costs no more, and rows that are needed no longer go.
    """
    generator, names = random.Random(seed), list(FACTORS)
    drawn = ({name: generator.choice(FACTORS[name]) for name in names} for _ in range(1500))
    candidates = [(row, pairs_of(row)) for row in drawn if accepted(row)]
    found = collections.Counter(pair for _, pairs in candidates for pair in pairs)
    assert min(found.values()) > 1, "if one were found but once, others may not have been found: draw more"
    wanted = set(found)
    rows, missing = [], wanted
    while missing:
        row, pairs = max(candidates, key=lambda pair: len(pair[1] & missing) / cost(pair[0]))
        rows.append(row)
        missing = missing - pairs
    times = collections.Counter(pair for row in rows for pair in pairs_of(row))
    for _ in range(4000):
        row, name = generator.choice(rows), generator.choice(names)
        other = row | {name: generator.choice(FACTORS[name])}
        lost, won = pairs_of(row) - pairs_of(other), pairs_of(other) - pairs_of(row)
        spared = won and won <= wanted and all(times[pair] > 1 for pair in lost) and cost(other) <= cost(row)
        if spared and accepted(other):
            times.update(won)
            times.subtract(lost)
            row.update(other)
            if all(times[pair] > 1 for pair in pairs_of(row)):
                times.subtract(pairs_of(row))
                rows.remove(row)
    assert wanted == set().union(*map(pairs_of, rows))
    return rows


@pytest.mark.slow
def test_every_pair_of_accepted_settings_trains_two_steps(tmp_path):
    """All combinations would be 100,000; every pair of values occurs in one of these few."""
    rows = pairwise()
    assert {value for row in rows for value in row.items()} == {(n, v) for n, values in FACTORS.items() for v in values}
    first = {name: values[0] for name, values in FACTORS.items()}
    rows.append(first | {"model.cut": "mixed8", "model.train_from": "the cut"})  # a single cell, a block of each kind
    for number, row in enumerate(rows):
        config, workdir = combination(row, tmp_path / str(number))
        assert train(config, workdir) == 0, row
        (entry,) = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        assert entry["step"] == 2, row
        assert np.isfinite(entry["train/loss"]), row
        assert np.isfinite(entry["validation/loss"]), row
