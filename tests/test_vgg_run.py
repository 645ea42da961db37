"""A run on VGG-19: cut and trained by the names of its blocks, streamed or on bottlenecks, resumed, used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small
from small_bottlenecks import config_of
from small_run import metrics, outcome
from weights_files import write_canonical

import jaxcat
from jaxcat import evaluate, predict
from jaxcat.errors import ConfigError
from jaxcat.flags import validate
from jaxcat.models.preprocessing import BGR_MINUS_MEANS, Conventions
from jaxcat.train import train
from jaxcat.weights import strict

WIDTH = 1 / 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random numbers of a narrow VGG-19, of about the size that keeps activations of order one."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(0, np.sqrt(2 / max(1, np.prod(shape[:-1]))), shape).astype(np.float32)
        for name, shape in strict.expected("vgg19", WIDTH).items()
    }
    description = {"backbone": "vgg19", "width": WIDTH, **Conventions(BGR_MINUS_MEANS).to_dict()}
    return write_canonical(tmp_path_factory.mktemp("vgg") / "vgg.safetensors", arrays, **description)


def vgg_config(folder: Path, weights: Path, **changes):
    model = {"backbone": "vgg19", "weights": str(weights), "width": WIDTH, "cut": "block3", "train_from": "block3"}
    config = config_of(folder, **{f"model.{name}": value for name, value in model.items()} | changes)
    validate(config)
    return config


@pytest.mark.slow
def test_streaming_bottlenecks_and_resuming_agree(folder, weights, tmp_path, empty_cache, capsys):
    whole = vgg_config(folder, weights)
    assert train(whole, tmp_path / "cached") == 0
    streamed = vgg_config(folder, weights, **{"bottleneck.views": 0})
    assert train(streamed, tmp_path / "streamed") == 0
    for mine, theirs in zip(metrics(tmp_path / "cached"), metrics(tmp_path / "streamed"), strict=True):
        assert mine["train/loss"] == pytest.approx(theirs["train/loss"], rel=2e-5)
        assert mine["validation/loss"] == pytest.approx(theirs["validation/loss"], rel=2e-5)
    half = vgg_config(folder, weights, epochs=1)
    assert train(half, tmp_path / "half") == 0
    assert train(whole, tmp_path / "half") == 0
    assert outcome(tmp_path / "half") == outcome(tmp_path / "cached")

    classifier = jaxcat.load(tmp_path / "cached")
    assert list(classifier.network.blocks) == ["block1", "block2", "block3"]
    assert {stage for stage, leaves in classifier.trained["params"].items() if leaves} == {"block3", "logits"}
    capsys.readouterr()
    assert evaluate.main(["--workdir", str(tmp_path / "cached")]) == 0
    measured = json.loads((tmp_path / "cached/evaluation/validation.json").read_text())
    best = max(metrics(tmp_path / "cached"), key=lambda entry: entry["validation/accuracy"])
    assert (measured["count"], measured["accuracy"]) == (12, pytest.approx(best["validation/accuracy"]))
    assert predict.main(["--workdir", str(tmp_path / "cached"), str(folder / "validation" / "disc")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(rows) == 6
    assert {row["label"] for row in rows} <= {"disc", "square"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("cut", "mixed7", "block5"), ("train_from", "mixed0", "block1"), ("train_from", "block4", "block3")],
)
def test_blocks_of_the_other_backbone_are_refused(folder, weights, name, value, says):
    with pytest.raises(ConfigError, match=rf"--config.model.{name}={value}.*{says}"):
        vgg_config(folder, weights, **{f"model.{name}": value})


def test_an_empty_cut_is_the_last_block(folder, weights):
    network = small.network(vgg_config(folder, weights, **{"model.cut": "", "model.train_from": "head"}))
    assert list(network.blocks) == ["block1", "block2", "block3", "block4", "block5"]
