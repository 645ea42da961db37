"""The table of backbones: everything that differs between one pretrained network and another.

A row has the ordered stages of a backbone with the layers of each, the least image size and the weights that fit.
This module imports no framework, because commands check settings against it before they import JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxcat.errors import ConfigError
from jaxcat.models import inception, vgg
from jaxcat.models.wiring import OUTPUT, Shape, Table, shapes_of
from jaxcat.wording import not_one_of

if TYPE_CHECKING:
    from jaxcat.models.layers import Options

PREFIX_VERSION = 1  # increase it if the results of the prefix change: tests/test_golden.py fails if that was forgotten

# Values that a request may leave open; completion.py replaces them.
FAST = "fast"  # of model.cut
AUTO = "auto"  # of model.pool_from


@dataclasses.dataclass(frozen=True)
class Top:
    """The published classification layers of a backbone, which a trained head replaces.

    Attributes:
        pool: how the output of the last block becomes features; a value of `model.pool`.
        hidden: name → width of the layers with ReLU before the logits.
        image_size: pixels a side that it needs, or None if any size works.
        classes: number of classes.
    """

    pool: str = "avg"
    hidden: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)  # a dictionary has no hash
    image_size: int | None = None
    classes: int = 1000


@dataclasses.dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Attributes:
        meaning: one line for `--help`.
        title: the network's name in messages.
        wiring: name of each block → its layers, in the order the data flows.
        least_image_size: pixels a side.
        image_size: pixels a side that the published weights were trained on.
        fast_cut, fast_image_size: a last block and a size that cost a fraction of the whole, for `model.cut=fast`.
        weights: name of the default weights; see weights/registry.py.
        batch_norm: whether the blocks have batch normalisation.
        top: the published classification layers.
    """

    meaning: str
    title: str
    wiring: Mapping[str, Table]
    least_image_size: int
    image_size: int
    fast_cut: str
    fast_image_size: int
    weights: str
    batch_norm: bool
    top: Top

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the blocks in the order the data flows."""
        return tuple(self.wiring)

    def build(self, cut: str, options: Options) -> dict[str, Any]:
        """Modules by name, from the first stage to `cut`. Imports the framework.

        Raises:
            ValueError: `cut` is not a stage.
        """
        from jaxcat.models.blocks import Block

        modules: dict[str, Any] = {}
        features = 3
        for name in self.up_to(cut):
            modules[name] = Block(self.wiring[name], features, batch_norm=self.batch_norm, o=options)
            features = modules[name].features
        return modules

    def shapes(self, cut: str, image_size: int, *, width: float) -> dict[str, Shape]:
        """Height, width and channels of every block's output, from the first stage to `cut`.

        `width` multiplies the channels of the published network.
        """
        shapes: dict[str, Shape] = {}
        shape = (image_size, image_size, 3)
        for name in self.up_to(cut):
            shapes[name] = shape = shapes_of(self.wiring[name], shape, width=width)[OUTPUT]
        return shapes

    def up_to(self, cut: str) -> tuple[str, ...]:
        """The stages from the first to `cut`. Raises ValueError if `cut` is not a stage."""
        return self.stages[: self.stages.index(cut) + 1]


BACKBONES: dict[str, Backbone] = {
    "inception_v3": Backbone(
        meaning="Inception-v3, arXiv:1512.00567; blocks stem, mixed0 … mixed10",
        title="Inception-v3",
        wiring=inception.STAGES,
        least_image_size=inception.LEAST_IMAGE_SIZE,
        image_size=299,
        fast_cut="mixed6",
        fast_image_size=176,
        weights="keras-imagenet",
        batch_norm=True,
        top=Top(),
    ),
    "vgg19": Backbone(
        meaning="VGG-19, arXiv:1409.1556; blocks block1 … block5",
        title="VGG-19",
        wiring=vgg.STAGES,
        least_image_size=vgg.LEAST_IMAGE_SIZE,
        image_size=vgg.TOP_IMAGE_SIZE,
        fast_cut="block4",
        fast_image_size=160,
        weights="keras-vgg19",
        batch_norm=False,
        top=Top(pool="flatten", hidden=vgg.TOP_HIDDEN, image_size=vgg.TOP_IMAGE_SIZE),
    ),
}


def pooled_blocks(model: ConfigDict) -> tuple[str, ...]:
    """The blocks whose outputs the head sees, in the order the data flows."""
    stages = BACKBONES[model.backbone].up_to(model.cut)
    return stages[stages.index(model.cut if model.pool_from == "cut" else model.pool_from) :]


def check_model(model: ConfigDict, *, image_size: int) -> None:
    """Checks the section `model` of a completed configuration against the table.

    Raises:
        ConfigError: names the flag, the value received and what is allowed.
    """
    check_names(model)
    backbone = BACKBONES[model.backbone]
    if image_size < backbone.least_image_size:
        raise ConfigError(
            f"--config.data.image_size={image_size}: {backbone.title} needs at least {backbone.least_image_size}"
        )
    _check_order(model, backbone, cut=model.cut)
    if model.train_bn and not backbone.batch_norm:
        raise ConfigError(f"--config.model.train_bn=True has no effect: {backbone.title} has no batch normalisation")
    if model.train_bn and model.train_from == "head":
        raise ConfigError(
            "--config.model.train_bn=True has no effect: frozen blocks keep their statistics, and "
            "--config.model.train_from=head trains no block"
        )
    if model.remat and model.train_from == "head":
        raise ConfigError("--config.model.remat=True has no effect: --config.model.train_from=head trains no block")
    if model.pool == "flatten" and model.pool_grid != 1:
        raise ConfigError(
            f"--config.model.pool_grid={model.pool_grid} needs another --config.model.pool than flatten, which "
            "keeps all values"
        )


def check_names(model: ConfigDict) -> None:
    """Checks the name of the backbone, and that cut, train_from and pool_from of a completed section are known.

    Raises:
        ConfigError: names the flag, the value received and what is allowed.
    """
    if problem := not_one_of(model.backbone, BACKBONES):
        raise ConfigError(f"--config.model.backbone={model.backbone}: {problem}")
    for name, others in (("cut", (FAST,)), ("train_from", ("head",)), ("pool_from", ("cut", AUTO))):
        if problem := not_one_of(model[name], (*others, *BACKBONES[model.backbone].stages)):
            raise ConfigError(f"--config.model.{name}={model[name]}: {problem}")


def _check_order(model: ConfigDict, backbone: Backbone, *, cut: str) -> None:
    """Checks that training and pooling begin no later than the cut."""
    place = backbone.stages.index
    if model.train_from != "head" and place(model.train_from) > place(cut):
        raise ConfigError(
            f"--config.model.train_from={model.train_from} lies beyond --config.model.cut={cut}: train from {cut} or "
            "an earlier block, or from head"
        )
    if model.pool_from == "cut":
        return
    if place(model.pool_from) > place(cut):
        raise ConfigError(
            f"--config.model.pool_from={model.pool_from} lies beyond --config.model.cut={cut}: use cut or an earlier "
            "block"
        )
