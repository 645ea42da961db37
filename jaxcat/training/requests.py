"""Which settings an exact head cannot have, and which it does not use. Imports no framework."""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxcat.config import default, flatten
from jaxcat.errors import ConfigError
from jaxcat.models.completion import chooses_blocks
from jaxcat.training.optim import is_exact

# Setting → the value that an exact head needs, and why.
NEEDED = {
    "model.hidden": (0, "the head is one linear layer"),
    "model.dropout": (0.0, "nothing is dropped, since there are no steps"),
    "model.train_from": ("head", "no block is trained"),
    "data.augment": ("none", "it is solved on one view of each image"),
    "bottleneck.views": (1, "it is solved on the bottlenecks of one view"),
    "optim.warmup_epochs": (0.0, "there is no learning rate"),
    "optim.layer_decay": (1.0, "there is no learning rate"),
    "optim.clip_norm": (0.0, "there are no gradients"),
    "optim.label_smoothing": (0.0, "least squares fits the labels as they are"),
    "optim.average": (0.0, "there are no steps to average over"),
    "optim.accumulate": (1, "there are no steps"),
    "optim.weight_decay": (0.0, "its L2 penalty is --config.optim.penalty"),
}
# Settings of training by steps, which change nothing.
UNUSED = (
    *("epochs", "batch_size", "optim.learning_rate", "optim.schedule", "optim.backbone_scale"),
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
                f"--config.{name}={values[name]} does not go with --config.optim.name=exact: {why}; set it to "
                f"{needed}, or train a head: the variant :trained of the recipe folder does"
            )
    if chooses_blocks(model) and model.pool == "flatten":
        raise ConfigError(
            "--config.model.pool=flatten with --config.model.pool_from=auto would keep every value of every block: "
            "choose another pool, such as avg_std, or name the blocks"
        )


def unused(config: ConfigDict) -> list[str]:
    """The settings that were changed from their default and that an exact head does not use, as typed."""
    values, defaults = flatten(config), flatten(default())
    return [f"--config.{name}={values[name]}" for name in UNUSED if values[name] != defaults[name]]
