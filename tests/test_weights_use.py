"""What stands on the weights: evaluation as published, ImageNet's classes without training, the conversion script."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from processes import command
from safetensors.numpy import save_file
from weights_files import WIDTH, golden_state, load, random_network, write_canonical, write_torch_safetensors

from jaxcat.config import default
from jaxcat.data.images.resizing import resize
from jaxcat.errors import ConfigError
from jaxcat.inference.published import published_classifier
from jaxcat.models.completion import complete
from jaxcat.models.preprocessing import Conventions
from jaxcat.objectives.probabilities import probabilities
from jaxcat.runs.meta import Meta
from jaxcat.training.origin import find_origin, from_run, from_weights
from jaxcat.weights.load import load_pretrained
from jaxcat.weights.verify import jaxcat_outputs


def complete_config() -> ConfigDict:
    config = default()
    complete(config)
    return config


def meta(provenance: dict, conventions: Conventions | None = None) -> Meta:
    """Of a run of two classes, as far as another run looks at it."""
    rest = {"frozen_digests": {}, "versions": {}, "step_versions": {}, "metrics": ()}
    return Meta(complete_config(), ("a", "b"), conventions or Conventions(), provenance, step=1, **rest)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """torchvision's layout in full width, with a top, random."""
    path = tmp_path_factory.mktemp("source") / "model.safetensors"
    save_file(golden_state(), path)
    return path


@pytest.fixture(scope="module")
def canonical(source) -> Path:
    out = source.with_name("canonical.safetensors")
    status, output = command("convert_weights", source, out, logs=source.parent)
    assert status == 0, output
    return out


@pytest.mark.parametrize("shape", [(375, 499), (499, 375), (299, 299), (60, 45), (341, 900)], ids=str)
@pytest.mark.parametrize(
    ("mode", "shorter", "kernel"),
    [("timm", 341, Image.Resampling.BICUBIC), ("torchvision", 342, Image.Resampling.BILINEAR)],
)
def test_evaluation_pixels_are_those_of_resize_and_center_crop(shape, mode, shorter, kernel):
    """torchvision.transforms.Resize(shorter), then CenterCrop(299), as Pillow steps."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    height, width = shape
    tall = shorter if height <= width else int(shorter * height / width)
    wide = shorter if width <= height else int(shorter * width / height)
    resized = Image.fromarray(image).resize((wide, tall), kernel)
    top, left = round((tall - 299) / 2), round((wide - 299) / 2)
    expected = np.asarray(resized)[top : top + 299, left : left + 299]
    np.testing.assert_array_equal(resize(image, 299, mode=mode), expected)


@pytest.mark.parametrize("mode", ["timm", "torchvision"])
def test_a_very_long_image_is_cropped_to_its_middle(mode):
    image = np.zeros((4, 40_000, 3), np.uint8)
    image[:, 19_000:21_000] = 200
    assert (resize(image, 75, mode=mode) == 200).all()


@pytest.mark.slow
def test_published_weights_name_imagenet_classes_without_training(source, shared):
    image = next((shared / "data").rglob("*.jpg"))
    classifier = published_classifier(str(source))
    assert (classifier.config.data.image_size, classifier.config.data.resize) == (299, "torchvision")
    assert len(classifier.classes) == 1000
    pixels = classifier.prepare(image)
    np.testing.assert_array_equal(pixels, resize(np.asarray(Image.open(image)), 299, mode="torchvision"))
    loaded = load_pretrained(str(source), with_top=True)
    logits = jaxcat_outputs(loaded, pixels[None] / np.float32(127.5) - 1)["logits"]
    np.testing.assert_allclose(classifier.predict([image]), probabilities(logits), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_predict_takes_weights_in_place_of_a_workdir(canonical, tmp_path):
    Image.new("RGB", (80, 90), "red").save(tmp_path / "red.png")
    arguments = (tmp_path / "red.png", "--top", "3", "--weights", canonical)
    status, _ = command("jaxcat.predict", *arguments, "--workdir", "x", logs=tmp_path)
    assert status == 2
    status, output = command("jaxcat.predict", *arguments, "--explain", tmp_path / "maps", logs=tmp_path)
    assert status == 0, output
    (row,) = [line for line in output.splitlines() if line.startswith("{")]
    assert len(json.loads(row)["top"]) == 3
    assert "299×299 torchvision" in output
    assert Image.open(tmp_path / "maps" / "00001-red.png").size == (80, 90)


@pytest.mark.slow
def test_a_converted_file_gives_the_same_numbers_and_names_its_source(source, canonical):
    before = load_pretrained(str(source), with_top=True)
    after = load_pretrained(str(canonical), with_top=True)
    same = jax.tree.map(np.array_equal, (after.params, after.stats), (before.params, before.stats))
    assert all(jax.tree.leaves(same))
    assert (after.classes, after.evaluation) == (before.classes, before.evaluation)
    assert after.conventions == before.conventions
    assert after.provenance["before"] == before.provenance
    assert after.provenance["layout"] == "jaxcat"


@pytest.mark.slow
def test_the_script_inspects_leaves_the_top_out_and_refuses_to_overwrite_its_source(source, tmp_path):
    def script(*arguments: object) -> tuple[int, str]:
        return command("convert_weights", *arguments, logs=tmp_path / "logs")

    _, shown = script(source, "--inspect")
    assert "layout torch" in shown
    assert "mixed10/branch3x3_1x3/conv/kernel" in shown
    assert script(source, tmp_path / "body.safetensors", "--no-top")[0] == 0
    assert "logits" not in script(tmp_path / "body.safetensors", "--inspect")[1]
    status, again = script(source, source)
    assert status == 2
    assert "is the file to convert" in again
    (tmp_path / "text").write_text("hello")
    status, refused = script(tmp_path / "text", tmp_path / "out.safetensors")
    assert status == 2
    assert "Traceback" not in refused
    assert not (tmp_path / "out.safetensors").exists()


def test_a_folded_scale_and_moving_statistics_do_not_go_together(tmp_path):
    """Batch statistics would divide the folded scale out again."""
    network = random_network() | {"stem/conv1/bn/scale": np.float32([2, 3])}
    config = complete_config()
    config.model.weights = str(write_torch_safetensors(tmp_path / "x", network))
    config.model.width = WIDTH
    assert from_weights(config).provenance["batch_norm_scale"] == "folded into 1 of 94 kernels"
    config.model.train_bn = True
    with pytest.raises(ConfigError, match="--config.model.train_bn=True.*folded"):
        from_weights(config)


@pytest.fixture
def folded(tmp_path) -> dict:
    """Provenance of weights whose BatchNorm scale was folded into the kernels."""
    network = random_network() | {"stem/conv1/bn/scale": np.float32([2, 3])}
    return load(write_torch_safetensors(tmp_path / "scaled", network)).provenance


def test_a_run_begun_from_folded_weights_cannot_switch_batch_statistics_on(tmp_path, folded):
    config, before = complete_config(), meta({"source": "run", "before": folded})
    assert find_origin(config, tmp_path, meta=before, classes=("a", "b")).provenance["before"] == folded
    config.model.train_from, config.model.train_bn = "mixed0", True
    with pytest.raises(ConfigError, match=f"train_bn=True.*{tmp_path.name}.*folded"):
        find_origin(config, tmp_path, meta=before, classes=("a", "b"))


def test_a_scale_folded_before_a_file_was_converted_counts_too(tmp_path, folded):
    config = complete_config()
    twice = {"source": "converted again", "before": folded}
    config.model.weights = str(write_canonical(tmp_path / "x", random_network(), provenance=twice))
    config.model.width, config.model.train_bn = WIDTH, True
    with pytest.raises(ConfigError, match="train_bn=True.*--config.model.weights=.*folded"):
        from_weights(config)


@pytest.mark.parametrize("provenance", ["a word", {"batch_norm_scale": 3, "before": [1]}], ids=str)
def test_a_canonical_file_may_say_anything_of_its_origin(tmp_path, provenance):
    config = complete_config()
    config.model.weights = str(write_canonical(tmp_path / "x", random_network(), provenance=provenance))
    config.model.width, config.model.train_bn = WIDTH, True
    assert from_weights(config).provenance["before"] == provenance


@pytest.mark.parametrize("depth", [1, 2])
def test_a_scale_folded_before_another_run_counts_too(folded, monkeypatch, depth):
    """The other run is only looked at, so its configuration and history are all that it needs here."""
    provenance = folded if depth == 1 else {"source": "run", "workdir": "first", "before": folded}
    empty = {"params": {}, "stats": {}}
    run = SimpleNamespace(meta=meta(provenance, Conventions(pool_counts_padding=True)), frozen=empty, trained=empty)
    monkeypatch.setattr("jaxcat.training.origin.restore", lambda *_, **__: run)
    config = complete_config()
    config.init_from = "other"
    assert from_run(config, ("a", "b")).provenance["before"] == provenance
    config.model.train_bn = True
    with pytest.raises(ConfigError, match="train_bn=True.*--config.init_from=other is folded.*use False"):
        from_run(config, ("a", "b"))
