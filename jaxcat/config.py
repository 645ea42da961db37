"""Every knob there is, its default, and the one check of them all.

On the command line a knob is `--config.` and its name: `--config.optim.learning_rate=1e-3`. The files in configs/ start
from `default()` and change what differs.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxcat.errors import ConfigError

BLOCKS = ("stem", *(f"mixed{i}" for i in range(11)))  # the stages of inception.py, in the order the data flows
MIN_IMAGE_SIZE = 75  # below this the last valid convolution has nothing left to read (Keras refuses it too)

# What may differ when a run is continued: how long it goes on and where things lie, never what it computes.
MAY_CHANGE_ON_RESUME = ("epochs", "resume", "stop.", "checkpoint.", "data.dir", "data.cache_gb", "data.download")


def default() -> ConfigDict:
    """A new configuration with every field set; `[…]` in a comment is the value that turns the thing off."""
    config = ConfigDict()
    config.seed = 0  # initial head, data order, augmentation, dropout
    config.epochs = 20
    config.batch_size = 20  # global, over all devices and hosts
    config.init_from = ""  # workdir of another run whose backbone (and head, if the classes agree) to start from [""]
    config.resume = "auto"  # auto: continue what the workdir holds | force: another config too | never: refuse it

    config.data = ConfigDict()
    config.data.source = "folder"  # folder | tfds | digits | glyphs
    config.data.dir = ""  # folder: DIR/{train,validation,test}/CLASS/ or DIR/CLASS/; tfds: its data directory
    config.data.name = ""  # tfds: name of the data set
    config.data.train = "train"  # tfds: split expression, such as "train[:80%]"
    config.data.validation = ""  # tfds: split expression; "" holds out validation_fraction of train
    config.data.test = ""  # tfds: split expression [""]
    config.data.validation_fraction = 0.2  # held out of train, seeded and stratified, where no validation split exists
    config.data.classes = ""  # comma-separated names to keep [""]
    config.data.image_size = 299  # pixels a side that the network sees, at least 75
    # squash: to a square, as Keras does | center_crop: the largest central square | timm, torchvision: as they evaluate
    config.data.resize = "squash"
    config.data.train_size = 0  # balanced, seeded subset of train [0]
    config.data.validation_size = 0  # the same of validation [0]
    config.data.skip_bad = False  # leave unreadable pictures out and say how many; False: refuse to start, list them
    config.data.download = False  # tfds: allow it to download and prepare the data set
    config.data.cache_gb = 4.0  # GiB for decoded pictures; a split that does not fit whole is decoded anew [0.0]
    config.data.augment = "none"  # none | article | inception | digits; see augment.py

    config.model = ConfigDict()
    config.model.weights = "keras-imagenet"  # name in weights/registry.py | path of a file | none
    config.model.preprocessing = (
        "weights"  # weights: as the weights were trained | zero_one: [0, 1], as the article did
    )
    config.model.cut = "mixed10"  # the last block used
    config.model.train_from = "head"  # the first thing trained: head | a block, up to the cut
    config.model.train_bn = False  # True: BatchNorm of trained blocks normalises by the batch and moves its statistics
    config.model.bn_momentum = 0.9  # with train_bn; Keras's 0.99 is too slow for runs of a few hundred steps
    config.model.pool_from = "cut"  # the head sees the outputs of all blocks from here to the cut, pooled side by side
    config.model.pool = "avg"  # avg | max | flatten
    config.model.pool_grid = 1  # g: pool to g×g cells, then flatten [1: one global cell]
    config.model.hidden = 0  # width of a hidden ReLU layer [0]
    config.model.dropout = 0.0  # before the logits [0.0]
    config.model.width = 1.0  # multiplier on every channel count; published weights need 1.0
    config.model.dtype = (
        "float32"  # float32 | bfloat16: of the computation; parameters, statistics, logits stay float32
    )

    config.optim = ConfigDict()
    config.optim.name = "rmsprop"  # rmsprop (as Keras) | adam | adamw | adagrad | sgd (momentum 0.9)
    config.optim.learning_rate = 1e-4
    config.optim.schedule = "constant"  # constant | cosine (to 0 at the last step)
    config.optim.warmup_epochs = 0.0  # linear, from 0 [0.0]
    config.optim.backbone_scale = 1.0  # the backbone's learning rate is this times the head's
    config.optim.weight_decay = 0.0  # decoupled, on kernels only [0.0]
    config.optim.clip_norm = 0.0  # global norm, head and backbone apart [0.0]
    config.optim.class_weight = "none"  # none | balanced: a class counts inversely to its frequency

    config.stop = ConfigDict()
    config.stop.accuracy = 0.0  # end when reached [0.0]
    config.stop.on = "validation"  # train | validation: whose accuracy
    config.stop.patience = 0  # end after this many epochs without a better validation result [0]

    config.bottleneck = ConfigDict()
    config.bottleneck.views = (
        0  # keep the frozen prefix's output of so many views of each picture, one an epoch at most [0: stream]
    )
    config.bottleneck.dtype = "float16"  # float16 | float32: as they lie on disk

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 0  # also save within an epoch [0]
    config.checkpoint.keep = 1  # how many of the best to keep, besides the latest two
    return config


def check_variant(variant: str, variants: Sequence[str]) -> None:
    """For a config file: raises ConfigError unless `FILE.py:VARIANT` names one it has."""
    if variant not in variants:
        raise ConfigError(f"--config: no variant {variant!r}; this file has {', '.join(variants)}")


def one_of(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value in allowed:
            return ""
        near = difflib.get_close_matches(str(value), allowed, n=1)
        return f"must be one of {', '.join(allowed)}" + (f"; did you mean {near[0]}?" if near else "")

    return check


def number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[Any], str]:
    """Finite, and from `low` (or above it) to `high`."""

    def check(value: Any) -> str:
        if not math.isfinite(value):
            return "must be a finite number"
        if value < low or value > high or (above and value == low):
            bound = f"above {low:g}" if above else f"at least {low:g}"
            return f"must be {bound}" + (f" and at most {high:g}" if math.isfinite(high) else "")
        return ""

    return check


def anything(value: Any) -> str:
    return ""


RULES: dict[str, Callable[[Any], str]] = {
    "seed": number(0, 2**31 - 1),
    "epochs": number(1, 10**6),
    "batch_size": number(1, 2**20),
    "init_from": anything,
    "resume": one_of("auto", "force", "never"),
    "data.source": one_of("folder", "tfds", "digits", "glyphs"),
    "data.dir": anything,
    "data.name": anything,
    "data.train": anything,
    "data.validation": anything,
    "data.test": anything,
    "data.validation_fraction": number(0, 0.9, above=True),
    "data.classes": anything,
    "data.image_size": number(MIN_IMAGE_SIZE, 4096),
    "data.resize": one_of("squash", "center_crop", "timm", "torchvision"),
    "data.train_size": number(0),
    "data.validation_size": number(0),
    "data.skip_bad": anything,
    "data.download": anything,
    "data.cache_gb": number(0),
    "data.augment": one_of("none", "article", "inception", "digits"),
    "model.weights": anything,
    "model.preprocessing": one_of("weights", "zero_one"),
    "model.cut": one_of(*BLOCKS),
    "model.train_from": one_of("head", *BLOCKS),
    "model.train_bn": anything,
    "model.bn_momentum": number(0, 1),
    "model.pool_from": one_of("cut", *BLOCKS),
    "model.pool": one_of("avg", "max", "flatten"),
    "model.pool_grid": number(1, 64),
    "model.hidden": number(0, 2**16),
    "model.dropout": number(0, 0.99),
    "model.width": number(0, 4, above=True),
    "model.dtype": one_of("float32", "bfloat16"),
    "optim.name": one_of("rmsprop", "adam", "adamw", "adagrad", "sgd"),
    "optim.learning_rate": number(0, 1e3, above=True),
    "optim.schedule": one_of("constant", "cosine"),
    "optim.warmup_epochs": number(0, 10**5),
    "optim.backbone_scale": number(0, 1e3, above=True),
    "optim.weight_decay": number(0, 1),
    "optim.clip_norm": number(0),
    "optim.class_weight": one_of("none", "balanced"),
    "stop.accuracy": number(0, 1),
    "stop.on": one_of("train", "validation"),
    "stop.patience": number(0),
    "bottleneck.views": number(0, 10**4),
    "bottleneck.dtype": one_of("float16", "float32"),
    "checkpoint.every_steps": number(0),
    "checkpoint.keep": number(1, 100),
}


# Settings younger than checkpoints of the present format, with the value that runs without them stand for.
_YOUNGER = {("model", "pool_from"): "cut"}


def completed(stored: dict[str, Any]) -> ConfigDict:
    """The configuration that a checkpoint carries, also one from before a setting was there."""
    config = ConfigDict(stored)
    for (section, name), value in _YOUNGER.items():
        if isinstance(config.get(section), ConfigDict) and name not in config[section]:
            config[section][name] = value
    return config


def pooled_blocks(model: ConfigDict) -> tuple[str, ...]:
    """The blocks whose outputs the head sees, in the order the data flows."""
    first = model.cut if model.pool_from == "cut" else model.pool_from
    return BLOCKS[BLOCKS.index(first) : BLOCKS.index(model.cut) + 1]


def flatten(config: ConfigDict) -> dict[str, Any]:
    """`{"data.image_size": 299, …}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat.update(
            {f"{key}.{k}": v for k, v in flatten(value).items()} if isinstance(value, ConfigDict) else {key: value}
        )
    return flat


def check_name(name: str, settings: Iterable[str]) -> None:
    """Raises ConfigError unless `name`, such as "optim.learning_rate", is one of `settings`."""
    if name not in settings:
        near = difflib.get_close_matches(name, settings, n=1)
        raise ConfigError(f"--config.{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))


def validate(config: ConfigDict) -> None:
    """Check every field and every combination before any work is done.

    Raises:
        ConfigError: names the flag, the value received and what is allowed.
    """
    values, defaults = flatten(config), flatten(default())
    for name in sorted(values.keys() | defaults.keys()):
        check_name(name, defaults)
        if name not in values:
            raise ConfigError(f"--config.{name} is missing: start your config file from jaxcat.config.default()")
        value, kind = values[name], type(defaults[name])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ConfigError(f"--config.{name}={value!r}: must be of type {kind.__name__}")
        if problem := RULES[name](value):
            raise ConfigError(f"--config.{name}={value}: {problem}")
    _validate_combinations(config)


def _validate_combinations(config: ConfigDict) -> None:
    data, model, optim = config.data, config.model, config.optim
    if data.source == "folder" and not data.dir:
        raise ConfigError("--config.data.dir is empty: name the folder of pictures, DIR/train/CLASS/… or DIR/CLASS/…")
    if data.source == "tfds" and not data.name:
        raise ConfigError("--config.data.name is empty: name the TFDS data set, for example cats_vs_dogs")
    if model.train_from != "head" and BLOCKS.index(model.train_from) > BLOCKS.index(model.cut):
        raise ConfigError(
            f"--config.model.train_from={model.train_from} lies beyond --config.model.cut={model.cut}: train from "
            f"{model.cut} or an earlier block, or from head"
        )
    _validate_pool_from(model)
    if model.train_bn and model.train_from == "head":
        raise ConfigError(
            "--config.model.train_bn=True has no block to act on: frozen blocks keep their statistics, and "
            "--config.model.train_from=head trains no block"
        )
    if model.pool == "flatten" and model.pool_grid != 1:
        raise ConfigError(
            f"--config.model.pool_grid={model.pool_grid} needs --config.model.pool=avg or max; flatten keeps all cells"
        )
    if optim.name == "adamw" and not optim.weight_decay:
        raise ConfigError("--config.optim.name=adamw needs --config.optim.weight_decay above 0; without decay use adam")
    if config.bottleneck.views and model.train_from == "stem":
        raise ConfigError(
            f"--config.bottleneck.views={config.bottleneck.views} keeps what frozen blocks make of a picture, and "
            "--config.model.train_from=stem freezes none: set --config.bottleneck.views=0"
        )
    if model.weights == "":
        raise ConfigError("--config.model.weights is empty: give a registry name, the path of a file, or none")


def _validate_pool_from(model: ConfigDict) -> None:
    if model.pool_from == "cut":
        return
    flag = f"--config.model.pool_from={model.pool_from}"
    if BLOCKS.index(model.pool_from) > BLOCKS.index(model.cut):
        raise ConfigError(f"{flag} lies beyond --config.model.cut={model.cut}: use cut or an earlier block")
    if model.train_from != "head" and BLOCKS.index(model.train_from) > BLOCKS.index(model.pool_from):
        raise ConfigError(
            f"{flag}: some of the pooled blocks would be frozen and others trained with --config.model.train_from="
            f"{model.train_from}; train from {model.pool_from}, an earlier block, or head"
        )


def difference(saved: ConfigDict, asked: ConfigDict) -> list[str]:
    """What `asked` would change about a run configured by `saved`, one `name: saved → asked` a line."""
    old, new = flatten(saved), flatten(asked)
    return [
        f"{name}: {old.get(name)!r} → {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(MAY_CHANGE_ON_RESUME)
    ]
