"""Which settings of training can be combined, and which an exact head cannot have or does not use.

Imports no framework.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxcat.config import default, flatten
from jaxcat.errors import ConfigError
from jaxcat.models.completion import chooses_blocks
from jaxcat.training.mixing import MIXES
from jaxcat.training.optim import OPTIMIZERS, SCHEDULES, is_exact

# Setting → the value that an exact head needs, and why.
NEEDED = {
    "model.hidden": (0, "the head is one linear layer"),
    "model.dropout": (0.0, "nothing is dropped, since there are no steps"),
    "model.train_from": ("head", "no block is trained"),
    "data.augment": ("none", "it is solved on one view of each image"),
    "data.erase": (0.0, "it is solved on one view of each image"),
    "bottleneck.views": (1, "it is solved on the bottlenecks of one view"),
    "optim.warmup_epochs": (0.0, "there is no learning rate"),
    "optim.layer_decay": (1.0, "there is no learning rate"),
    "optim.clip_norm": (0.0, "there are no gradients"),
    "optim.label_smoothing": (0.0, "least squares fits the labels as they are"),
    "optim.average": (0.0, "there are no steps to average over"),
    "optim.accumulate": (1, "there are no steps"),
    "optim.mix": ("none", "it is solved on the images as they are"),
    "optim.find_learning_rate": (False, "there is no learning rate"),
    "optim.weight_decay": (0.0, "its L2 penalty is --config.optim.penalty"),
}
# Settings of training by steps, which change nothing.
UNUSED = (
    *("epochs", "batch_size", "optim.learning_rate", "optim.schedule", "optim.backbone_scale"),
    "optim.mix_alpha",
    *("stop.accuracy", "stop.on", "stop.patience", "checkpoint.every_steps"),
)


def check_exact(config: ConfigDict) -> None:
    """Checks the settings of an exact head, and that no trained head has settings of an exact one.

    Raises:
        ConfigError: names the flag, the value received and what is needed.
    """
    values, model = flatten(config), config.model
    if not is_exact(config):
        if config.optim.penalty:
            raise ConfigError(
                f"--config.optim.penalty={config.optim.penalty:g} is for --config.optim.name=exact; "
                f"{config.optim.name} has --config.optim.weight_decay"
            )
        if chooses_blocks(model):
            raise ConfigError(
                "--config.model.pool_from=auto without --config.model.cut chooses blocks by leave-one-out, which needs "
                f"--config.optim.name=exact, not {config.optim.name}: name the last block with --config.model.cut, "
                "or use the variant :trained of the recipe folder"
            )
        return
    for name, (needed, why) in NEEDED.items():
        if values[name] != needed:
            raise ConfigError(
                f"--config.{name}={values[name]} cannot be combined with --config.optim.name=exact: {why}; set it to "
                f"{needed}, or train a head: the variant :trained of the recipe folder does"
            )
    if chooses_blocks(model) and model.pool == "flatten":
        raise ConfigError(
            "--config.model.pool=flatten with --config.model.pool_from=auto would keep every value of every block: "
            "choose another pool, such as avg_std, or name the blocks"
        )


def check_optim(config: ConfigDict) -> None:
    """Checks that the settings of the train step go together, and have an effect.

    Raises:
        ConfigError: names the flag, the value received and what is allowed.
    """
    model, optim = config.model, config.optim
    if OPTIMIZERS[optim.name].needs_decay and not optim.weight_decay:
        raise ConfigError(
            f"--config.optim.name={optim.name} needs --config.optim.weight_decay above 0; without decay use adam"
        )
    if MIXES[optim.mix].mixes == "image" and config.bottleneck.views:
        raise ConfigError(
            f"--config.optim.mix={optim.mix} mixes images; with --config.bottleneck.views={config.bottleneck.views} "
            "steps see none: add --config.bottleneck.views=0, or --config.optim.mix=mixup_bottlenecks"
        )
    if MIXES[optim.mix].mixes == "bottleneck" and not config.bottleneck.views:
        raise ConfigError(
            f"--config.optim.mix={optim.mix} mixes bottlenecks, and --config.bottleneck.views=0 keeps none: set views "
            "to 1 or more, or mix to mixup"
        )
    if config.batch_size % optim.accumulate:
        above = -(-config.batch_size // optim.accumulate) * optim.accumulate
        raise ConfigError(
            f"--config.optim.accumulate={optim.accumulate} does not divide --config.batch_size={config.batch_size}: "
            f"set batch_size to a multiple of {optim.accumulate}, such as {above}, or accumulate to a divisor of "
            f"{config.batch_size}"
        )
    if optim.accumulate > 1 and model.train_bn:
        raise ConfigError(
            f"--config.optim.accumulate={optim.accumulate} cannot be combined with --config.model.train_bn=True, "
            "which normalises by the whole batch: switch one of them off"
        )
    if optim.layer_decay != 1.0 and model.train_from == "head":
        raise ConfigError(
            f"--config.optim.layer_decay={optim.layer_decay:g} has no effect: --config.model.train_from=head trains no "
            "block"
        )
    if SCHEDULES[optim.schedule].rises and optim.warmup_epochs:
        raise ConfigError(
            f"--config.optim.warmup_epochs={optim.warmup_epochs:g} cannot be combined with --config.optim.schedule="
            f"{optim.schedule}, which begins with a rise of its own: set it to 0, or choose another schedule"
        )


def unused(config: ConfigDict) -> list[str]:
    """The settings that were changed from their default and that an exact head does not use, as typed."""
    values, defaults = flatten(config), flatten(default())
    return [f"--config.{name}={values[name]}" for name in UNUSED if values[name] != defaults[name]]
