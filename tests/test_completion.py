"""What a request leaves to the backbone or to train, and the settings of exact heads."""

from __future__ import annotations

import pytest

from jaxcat import flags
from jaxcat.config import default
from jaxcat.errors import ConfigError
from jaxcat.models.backbone import BACKBONES, check_model, pooled_blocks
from jaxcat.models.completion import candidates, chooses_blocks, complete, set_blocks, widest
from jaxcat.training.requests import unused

DATA = ["--config.data.dir=images", "--config.data.name=tf_flowers"]


def completed(recipe: str, *overrides: str):
    config = flags.read_config(recipe, [*DATA, *overrides])
    flags.validate(config)
    complete(config)
    return config


@pytest.mark.parametrize("recipe", ["folder", "tfds", "cats_vs_dogs:best"])
@pytest.mark.parametrize(
    ("backbone", "size", "weights"), [("inception_v3", 299, "keras-imagenet"), ("vgg19", 224, "keras-vgg19")]
)
def test_a_recipe_for_strangers_takes_size_and_weights_of_the_backbone_that_the_command_names(
    recipe, backbone, size, weights
):
    config = completed(recipe, f"--config.model.backbone={backbone}")
    assert (config.data.image_size, config.model.weights) == (size, weights)
    assert config.model.preprocessing == "weights"
    assert chooses_blocks(config.model)
    assert completed(recipe, "--config.data.image_size=180").data.image_size == 180


@pytest.mark.parametrize("recipe", ["folder:fast", "tfds:fast", "cats_vs_dogs:fast"])
def test_a_fast_recipe_ends_early_and_pools_every_block_but_the_first(recipe):
    config = completed(recipe)
    assert (config.data.image_size, config.model.cut, config.model.pool_from) == (176, "mixed6", "mixed0")
    other = completed(recipe, "--config.model.backbone=vgg19")
    assert (other.data.image_size, other.model.cut, other.model.pool_from) == (160, "block4", "block2")


def test_a_named_cut_or_first_block_switches_the_choice_off():
    assert pooled_blocks(completed("folder", "--config.model.cut=mixed2").model) == ("mixed0", "mixed1", "mixed2")
    assert pooled_blocks(completed("folder", "--config.model.cut=stem").model) == ("stem",)
    assert pooled_blocks(completed("folder", "--config.model.pool_from=mixed9").model) == ("mixed9", "mixed10")
    assert pooled_blocks(completed("folder", "--config.model.pool_from=cut").model) == ("mixed10",)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_ranges_to_choose_from_are_contiguous_without_the_first_block_the_widest_first(name):
    stages, ranges = BACKBONES[name].stages, candidates(BACKBONES[name])
    assert ranges[0] == stages[1:]
    assert ranges[-1] == stages[-1:]
    assert len(set(ranges)) == len(ranges)
    for blocks in ranges:
        start = stages.index(blocks[0])
        assert start >= 1
        assert stages[start : start + len(blocks)] == blocks
        config = default()
        config.model.backbone = name
        set_blocks(config.model, blocks)
        assert pooled_blocks(config.model) == blocks


def test_completing_twice_changes_nothing_and_the_widest_network_can_be_built():
    config = completed("folder")
    again = config.copy_and_resolve_references()
    complete(again)
    assert again == config
    wide = widest(config)
    assert pooled_blocks(wide.model) == BACKBONES["inception_v3"].stages[1:]
    assert chooses_blocks(config.model), "the request itself stays as it is"


@pytest.mark.parametrize("setting", [{"cut": "fast"}, {"pool_from": "auto"}, {"cut": ""}])
def test_an_open_choice_in_a_checkpoint_is_refused(setting):
    config = completed("folder", "--config.model.cut=mixed2")
    check_model(config.model, image_size=299)
    config.model.update(setting)
    with pytest.raises((ConfigError, ValueError)):
        check_model(config.model, image_size=299)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.model.hidden=8"], "--config.model.hidden=8 cannot be combined with .*exact.* set it to 0"),
        (["--config.model.dropout=0.5"], "--config.model.dropout=0.5"),
        (["--config.model.train_from=mixed10"], "--config.model.train_from=mixed10"),
        (["--config.data.augment=article"], "--config.data.augment=article"),
        (["--config.bottleneck.views=0"], "--config.bottleneck.views=0"),
        (["--config.bottleneck.views=4"], "--config.bottleneck.views=4"),
        (["--config.optim.warmup_epochs=1"], "--config.optim.warmup_epochs=1"),
        (["--config.optim.clip_norm=1"], "--config.optim.clip_norm=1"),
        (["--config.optim.weight_decay=0.1"], "--config.optim.weight_decay=0.1.*--config.optim.penalty"),
        (["--config.optim.name=adam"], "pool_from=auto without .*cut.* needs .*exact, not adam"),
        (["--config.model.pool=flatten"], "--config.model.pool=flatten with .*pool_from=auto"),
        (["--config.optim.penalty=-1"], "--config.optim.penalty=-1"),
        (
            ["--config.optim.name=adam", "--config.model.cut=mixed2", "--config.optim.penalty=1"],
            "--config.optim.penalty=1 is for",
        ),
    ],
)
def test_what_an_exact_head_cannot_have_is_refused_by_name(overrides, message):
    with pytest.raises(ConfigError, match=message):
        completed("folder", *overrides)


def test_settings_of_training_by_steps_are_listed_as_unused():
    assert unused(completed("folder")) == []
    config = completed("folder", "--config.epochs=3", "--config.stop.patience=2", "--config.optim.learning_rate=0.1")
    assert unused(config) == ["--config.epochs=3", "--config.optim.learning_rate=0.1", "--config.stop.patience=2"]
