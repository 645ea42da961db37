"""A head that sees frozen blocks and trained ones: the same network, wherever the boundary lies."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from small_bottlenecks import SILENT, config_of, opened, prepared
from small_export import numbers
from test_steps import batch_of, begin

import jaxcat
from jaxcat import evaluate
from jaxcat.data.images.resizing import resize
from jaxcat.export.__main__ import main as export
from jaxcat.models.pooling import MAP
from jaxcat.objectives.sums import masked_sums
from jaxcat.system.compilation import jit
from jaxcat.training.steps import boundary_input, make_train_step

VGG = {"backbone": "vgg19", "cut": "block3", "pool_from": "block1", "pool": "avg_std"}
KINDS = [{}, {"pool": "flatten"}, {"pool": "max", "pool_grid": 2}, {"dtype": "bfloat16"}]


@pytest.fixture
def folder(tmp_path) -> Path:
    return small.image_folder(tmp_path / "images")


def config(train_from: str, **model):
    result = small.tiny_config()
    result.data.image_size = 32
    result.model.update({**VGG, "train_from": train_from, **model})
    return result


def divided(train_from: str, **model):
    """The network trained from a stage, with the numbers that it has wherever that lies: prefix, suffix."""
    network = small.network(config(train_from, **model))
    return network, *network.split(*numbers(network))


def outputs(train_from: str, **model) -> list[np.ndarray]:
    network, frozen, trained = divided(train_from, **model)
    bottleneck = network.prefix(frozen, small.images(3, 32))
    return [np.asarray(x) for x in network.logits_and_features(trained["params"], trained["stats"], bottleneck)]


@pytest.mark.parametrize("kind", small.slow_except(KINDS[:1], KINDS), ids=str)
def test_logits_and_features_do_not_depend_on_the_boundary(kind):
    expected = outputs("head", **kind)
    for train_from in ("block1", "block2", "block3"):
        for found, same in zip(outputs(train_from, **kind), expected, strict=True):
            np.testing.assert_array_equal(found, same)


@pytest.mark.slow
def test_a_bottleneck_is_the_map_and_then_the_features_of_frozen_blocks():
    network, frozen, _ = divided("block3")
    images = small.images(2, 32)
    found = network.prefix(frozen, images)
    alone, frozen_alone, _ = divided("block3", pool_from="block3")
    the_map = alone.prefix(frozen_alone, images)
    features = outputs("head")[1][:2]  # of the same images: they are drawn one after the other
    of_frozen = sum(part.width for part in network.parts if part.block != "block3")
    np.testing.assert_array_equal(found, np.concatenate([the_map.reshape(2, -1), features[:, :of_frozen]], axis=1))
    assert [part[:2] for part in network.bottleneck.parts] == [
        ("block2", MAP), *((block, kind) for block in ("block1", "block2") for kind in ("avg", "std"))
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_in_single_precision_give_what_images_give(kind):
    network, frozen, _ = divided("block3", **kind)
    expected = network.prefix(frozen, small.images(2, 32))
    found = boundary_input(network, frozen, {"bottleneck": jnp.asarray(expected, jnp.float32)})
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_gradients_are_those_of_the_network_that_is_trained_whole():
    """A block's gradient comes through the head's view of it, and of the blocks after it."""
    gradients = {}
    batch = batch_of(4) | {"image": small.images(4, 32)}
    for train_from in ("block1", "block2"):
        network, frozen, trained = divided(train_from)

        def loss(params, network=network, frozen=frozen, stats=trained["stats"]):
            logits, _ = network.suffix(params, stats, network.prefix(frozen, batch["image"]))
            return masked_sums(logits, batch, ["accuracy"])["loss"]

        gradients[train_from] = jit(jax.grad(loss))(trained["params"])
    assert set(gradients["block2"]) == {"block2", "block3", "pool", "logits"}
    for stage, found in gradients["block2"].items():
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradients["block1"][stage]), strict=True):
            assert np.abs(b).max() > 0
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max())


def test_a_step_moves_every_trained_array():
    network, tx, state, frozen = begin(config("block3", dtype="bfloat16"))
    before = jax.tree.map(np.asarray, state.trained)
    state = jax.jit(make_train_step(network, tx, seed=0))(state, frozen, batch_of(8) | {"image": small.images(8, 32)})
    assert all(jax.tree.leaves(jax.tree.map(lambda new, old: bool((new != old).any()), state.trained, before)))


def pooling(folder: Path, **changes):
    both = {f"model.{name}": value for name, value in {**VGG, "train_from": "block3"}.items()}
    return config_of(folder, views=1, **{"data.augment": "none", "data.image_size": 32, **both, **changes})


@pytest.mark.slow
def test_rows_are_shared_with_runs_that_train_the_head_or_pool_trained_blocks_only(folder, empty_cache, rows_written):
    images = 24 + 12
    prepared(pooling(folder, **{"model.train_from": "head"}))
    rows_written.clear()
    found = opened(pooling(folder))
    assert found.describe().endswith("36 of 36 to compute, for 1 of 5 parts")
    found.prepare(SILENT)
    assert rows_written == {"block2-32px": images}  # the map
    assert prepared(pooling(folder, **{"model.pool_from": "block3"})).to_compute == 0
    (batch, *_) = found.train(0, first=0)
    assert batch["bottleneck"].shape == (8, *found.parts.shape)
    pixels = [resize(found.splits["train"].fetch(record), 32, mode="squash") for record in range(24)]
    expected = found._network.prefix(found._frozen, np.stack(pixels))
    rows = np.empty((24, *found.parts.shape), np.float32)
    found._readers[found._passes[1]](np.arange(24), rows)
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_run_is_evaluated_predicted_and_exported(folder, tmp_path, empty_cache, monkeypatch):
    """From rows and from images, the figures of the run; `export` compares onnxruntime's answers itself."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("jaxcat.bottlenecks.source.IN_MEMORY", 0)  # rows are read through memory maps
    settings = {
        **{"data.dir": folder, "data.image_size": 32, "model.weights": "none", "model.width": 1 / 16},
        **{f"model.{name}": value for name, value in VGG.items()},
        **{"model.train_from": "block3", "bottleneck.views": 1, "bottleneck.dtype": "float32", "epochs": 2},
    }
    run = jaxcat.fit("folder:trained", tmp_path / "run", settings=settings)
    streamed = jaxcat.fit("folder:trained", tmp_path / "streamed", settings=settings | {"bottleneck.views": 0})
    for cached, images in zip(run.history, streamed.history, strict=True):
        for split in ("train", "validation"):
            assert cached[f"{split}/loss"] == pytest.approx(images[f"{split}/loss"], rel=1e-4)
    assert evaluate.main(["--workdir", str(tmp_path / "run")]) == 0
    figures = json.loads((tmp_path / "run/evaluation/validation.json").read_text())
    (epoch,) = [entry for entry in run.history if entry["step"] == figures["step"]]
    assert figures["loss"] == pytest.approx(epoch["validation/loss"], rel=1e-5)
    files = sorted((folder / "validation").rglob("*.png"))
    assert run.classifier.predict(files).shape == (12, 2)
    assert run.classifier.features(files[:2]).shape == (2, run.classifier.network.features)
    assert export(["--workdir", str(tmp_path / "run"), "--format", "onnx", "--output", str(tmp_path / "m.onnx")]) == 0
