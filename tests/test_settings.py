"""The table of settings: complete, listed by --help, kept when older runs are read; requests checked against tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcat import flags
from jaxcat.config import completed, default, difference, flatten
from jaxcat.errors import ConfigError
from jaxcat.flags import choices_of, describe_settings, read_config, validate
from jaxcat.setting import Setting
from jaxcat.settings import SETTINGS

REPOSITORY = Path(__file__).resolve().parent.parent


def request(**settings):
    """A valid configuration with `section__name=value` changed."""
    config = default()
    config.data.dir = "images"
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in settings.items()})
    return config


# the table ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_says_what_it_is(name):
    setting, (listed,) = (
        SETTINGS[name],
        [line for line in describe_settings(10_000).splitlines() if f" {name}=" in line],
    )
    assert type(setting.default) in (bool, int, float, str)
    assert type(setting.before) is type(setting.default)
    assert not setting.problem(setting.default)
    assert not setting.problem(setting.before)
    assert setting.meaning
    assert setting.meaning in listed
    assert setting.unit in listed
    assert f"{name}={setting.default}" in listed.replace('""', "")
    assert listed.startswith("*") == setting.may_change
    assert all(meaning for meaning in choices_of(name).values())
    assert all(f" {choice}: {meaning}" in describe_settings(10_000) for choice, meaning in choices_of(name).items())


def test_a_setting_without_the_value_of_before_cannot_be_written():
    with pytest.raises(TypeError, match="before"):
        Setting(1, meaning="something new")


def test_the_default_has_every_setting():
    assert flatten(default()) == {name: setting.default for name, setting in SETTINGS.items()}


@pytest.mark.parametrize("columns", [82, 102, 300])
def test_help_lists_every_setting_in_the_terminals_width(columns):
    environment = {**os.environ, "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "jaxcat.train", "--help"]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert all(f" {name}=" in result.stdout for name in SETTINGS)
    listed = result.stdout.partition("settings, ")[2]
    assert max(map(len, listed.splitlines())) <= min(100, columns - 2)


# older runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_from_before_a_setting_is_completed_with_what_ran_then(name):
    older = default().to_dict()
    section, _, key = name.rpartition(".")
    del (older[section] if section else older)[key]
    assert flatten(completed(older)) == {**flatten(default()), name: SETTINGS[name].before}


def test_a_run_from_before_the_backbones_table_differs_in_nothing():
    """Its cut and weights are stored; it lacks the settings of this version and a whole section."""
    older = request(model__cut="mixed7", model__weights="keras-imagenet").to_dict()
    del older["model"]["backbone"], older["model"]["pool_from"], older["log"]
    assert difference(completed(older), request(model__cut="mixed7", model__weights="keras-imagenet")) == {}


def test_a_section_that_is_none_is_left_to_the_check():
    assert completed({"model": 3}).model == 3


def test_what_may_change_on_resume():
    may = {name for name, setting in SETTINGS.items() if setting.may_change}
    assert {name for name in may if "." not in name} == {"epochs", "resume"}
    data = {"data.dir", "data.table", "data.cache_gb", "data.download"}
    assert {name for name in may if name.startswith("data.")} == data
    whole = {name for name in SETTINGS if name.startswith(("stop.", "checkpoint.", "log."))}
    assert whole < may
    assert {name for name in may - whole if "." in name} == data
    asked = request(epochs=7, stop__patience=3, log__wandb="cats", seed=1, optim__name="adam")
    assert difference(request(), asked) == {"optim.name": ("rmsprop", "adam"), "seed": (0, 1)}


# reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [[], ["--config.seed=3", "--config.data.dir=x", "--noconfig.data.skip_bad"]])
def test_a_config_file_is_executed_once(tmp_path, overrides):
    file = tmp_path / "mine.py"
    file.write_text(
        "from pathlib import Path\n"
        "from jaxcat.config import default\n"
        "def note(what): Path(__file__).with_name('log').open('a').write(what)\n"
        "note('file ')\n"
        "def get_config(variant):\n"
        "    note(variant)\n"
        "    return default()\n"
    )
    config = read_config(f"{file}:one", overrides)
    assert (tmp_path / "log").read_text() == "file one"
    assert config.seed == (3 if overrides else 0)
    assert config.is_locked


def test_a_config_file_may_hold_dataclasses_and_settings_of_its_own_are_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from jaxcat.config import default\n"
        "@dataclasses.dataclass\n"
        "class Mine:\n"
        "    value: int = 3\n"
        "def get_config():\n"
        "    config = default()\n"
        "    config.extra = Mine().value\n"
        "    return config\n"
    )
    assert read_config(str(file), ["--config.extra=4"]).extra == 4
    with pytest.raises(ConfigError, match="--config.extra is not a setting"):
        validate(read_config(str(file), []))


def test_paths_become_absolute_and_other_values_are_left_to_the_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = flags.resolve_paths(request(data__dir="images", init_from="../run/", model__weights="none"))
    assert (config.data.dir, config.init_from) == (str(tmp_path / "images"), str(tmp_path.parent / "run"))
    assert config.model.weights == "none"
    bucket = request(data__dir="gs://bucket/sets", data__source="tfds")  # which TFDS itself can read
    assert flags.resolve_paths(bucket).data.dir == "gs://bucket/sets"
    for name in ("data.dir", "init_from", "model.weights"):
        with pytest.raises(ConfigError, match=f"--config.{name}=gs://bucket/x is a URL"):
            flags.resolve_paths(request(**{name.replace(".", "__"): "gs://bucket/x"}))
    with config.ignore_type():
        config.model.weights = [1]
        config.data = 3
    assert flags.resolve_paths(config).data == 3


# checking -------------------------------------------------------------------------------------------------------------


def test_empty_cut_and_weights_are_accepted_and_nothing_is_changed():
    for backbone in ("inception_v3", "vgg19"):
        config = request(model__backbone=backbone)
        before = config.to_json()
        validate(config)
        assert config.to_json() == before
        assert config.model.cut == config.model.weights == ""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data__image_size": 74}, "--config.data.image_size=74.*at least 75"),
        ({"model__backbone": "vgg19", "data__image_size": 31}, "--config.data.image_size=31.*at least 32"),
        ({"model__backbone": "vgg91"}, "--config.model.backbone=vgg91.*did you mean vgg19"),
        ({"model__backbone": "vgg19", "model__cut": "mixed7"}, "--config.model.cut=mixed7.*block1, block2"),
        ({"model__backbone": "vgg19", "model__train_from": "blok5"}, "train_from=blok5.*did you mean block5"),
        ({"model__pool_from": "mixd8"}, "--config.model.pool_from=mixd8.*did you mean mixed8"),
        (
            {"model__backbone": "vgg19", "model__train_from": "block4", "model__train_bn": True},
            "--config.model.train_bn=True.*no batch normalisation",
        ),
        ({"model__train_bn": True}, "--config.model.train_bn=True.*train_from=head"),
        ({"model__remat": True}, "--config.model.remat=True has no effect.*train_from=head"),
        ({"model__cut": "mixed2", "model__train_from": "mixed3"}, "train_from=mixed3 lies beyond .*cut=mixed2"),
        ({"model__cut": "mixed2", "model__pool_from": "mixed3"}, "pool_from=mixed3 lies beyond .*cut=mixed2"),
        ({"model__pool": "flatten", "model__pool_grid": 2}, "--config.model.pool_grid=2 needs"),
        ({"model__weights": "keras-vgg19"}, "--config.model.weights=keras-vgg19.*--config.model.backbone=vgg19"),
        ({"model__backbone": "vgg19", "model__train_from": "block1", "bottleneck__views": 1}, "train_from=block1"),
        ({"model__train_from": "stem", "bottleneck__views": 1}, "--config.bottleneck.views=1.*train_from=stem"),
        ({"optim__name": "adamw"}, "--config.optim.name=adamw needs --config.optim.weight_decay"),
        ({"data__dir": ""}, "--config.data.dir is empty"),
        ({"data__source": "tfds"}, "--config.data.name is empty"),
        ({"data__source": "digits", "data__train_dir": "x"}, "--config.data.train_dir=x names a folder"),
        ({"data__source": "digits", "data__min_per_class": 2}, "--config.data.min_per_class=2 is not for"),
        ({"optim__schedule": "one_cycle", "optim__warmup_epochs": 1.0}, "warmup_epochs=1 .*schedule=one_cycle"),
        ({"optim__mix": "mixup", "bottleneck__views": 1}, "mix=mixup mixes images.*views=1.*mixup_bottlenecks"),
        ({"optim__mix": "mixup_bottlenecks"}, "mix=mixup_bottlenecks mixes bottlenecks.*views=0"),
        (
            {"optim__accumulate": 3},
            "accumulate=3 does not divide --config.batch_size=20: set batch_size to a multiple of 3, such as 21",
        ),
        (
            {"optim__accumulate": 2, "model__train_from": "mixed9", "model__train_bn": True},
            "accumulate=2 cannot be combined with --config.model.train_bn",
        ),
        ({"optim__layer_decay": 0.5}, "layer_decay=0.5 has no effect.*train_from=head"),
        ({"optim__schedule": "cosin"}, "--config.optim.schedule=cosin.*did you mean cosine"),
        ({"data__augment": "articel"}, "--config.data.augment=articel.*did you mean article"),
    ],
)
def test_combinations_that_cannot_work(settings, says):
    with pytest.raises(ConfigError, match=says) as refused:
        validate(request(**settings))
    assert "\n" not in str(refused.value)


def test_every_name_of_every_table_is_accepted():
    for name in flags.TABLES:
        for choice in choices_of(name):
            exact = choice == "exact"
            views = exact or name == "bottleneck.engine" or choice == "mixup_bottlenecks"
            config = request(optim__weight_decay=0.0 if exact else 0.01, bottleneck__views=int(views))
            config.data.name = "cats_vs_dogs"
            config.update_from_flattened_dict({name: choice, "data.table": "t.csv" if choice == "table" else ""})
            validate(config)
    for name in choices_of("model.weights"):
        backbone = flags.REGISTRY[name].backbone if name in flags.REGISTRY else "inception_v3"
        validate(request(model__weights=name, model__backbone=backbone))


def test_every_optimizer_and_schedule_can_be_built():
    import optax

    for optimizer in flags.OPTIMIZERS.values():
        assert optimizer.build is None or isinstance(optimizer.build(optax), optax.GradientTransformation)
    for schedule in flags.SCHEDULES.values():
        rates = [float(schedule.build(optax, 0.1, 10)(step)) for step in range(10)]
        assert max(rates) == pytest.approx(0.1)
        assert (rates[0] < rates[1]) == schedule.rises
