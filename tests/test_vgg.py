"""VGG-19: every block and the logits against Keras's, its layouts, its preprocessing, and what takes it for another."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path

import convert_weights
import h5py
import numpy as np
import pytest
import small
from flax.traverse_util import flatten_dict
from weights_files import load, random_network, torch_state, write_canonical, write_keras_3, write_legacy

from jaxcat.errors import WeightsError
from jaxcat.inference import published
from jaxcat.models.preprocessing import BGR_MINUS_MEANS, Conventions
from jaxcat.weights import strict
from jaxcat.weights.keras_names import KERAS_NAMES
from jaxcat.weights.load import Pretrained, load_pretrained
from jaxcat.weights.registry import REGISTRY
from jaxcat.weights.verify import Outputs, differences, jaxcat_outputs, keras_outputs, random_images, sizes

WIDTH = 1 / 64  # 1, 2, 4, 8 and 8 channels
TOLERANCE = 1e-4  # of the largest magnitude in the tensor
TOP = {"fc1": "fc1", "fc2": "fc2", "logits": "predictions"}  # our name → Keras's
NAMES = KERAS_NAMES["vgg19"]


def load_vgg(path: Path, **options) -> Pretrained:
    return load_pretrained(str(path), **({"backbone": "vgg19", "width": WIDTH} | options))


@pytest.fixture(scope="module")
def vgg() -> dict[str, np.ndarray]:
    """A whole narrow VGG-19 by path, without its top."""
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, np.float32) for name, shape in strict.expected("vgg19", WIDTH).items()}


@pytest.fixture(scope="module")
def top() -> dict[str, np.ndarray]:
    """Its published top."""
    rng = np.random.default_rng(1)
    return {name: rng.random(shape, np.float32) for name, shape in strict.expected_top("vgg19", WIDTH).items()}


def write_named(path: Path, arrays: dict[str, np.ndarray], *, oldest: bool = False, prefix: str = "") -> Path:
    """Keras's legacy format: as newer versions write it, or as Keras 1 wrote the published files."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            unit, _, variable = name.rpartition("/")
            layer = TOP.get(unit, unit.replace("/", "_"))
            old = f"{layer}/{layer}_{ {'kernel': 'W', 'bias': 'b'}[variable] }_1:0"
            file[prefix + (old if oldest else f"{layer}/{layer}/{variable}:0")] = array
    return path


def write_numbered(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Keras 3's `.weights.h5`."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            unit, _, variable = name.rpartition("/")
            kind, units = ("dense", NAMES.dense) if unit in TOP else ("conv2d", NAMES.units)
            place = units.index(unit)
            group = f"{kind}_{place}" if place else kind
            file[f"layers/{group}/vars/{('kernel', 'bias').index(variable)}"] = array
    return path


def write_archive(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Keras 3's `.keras`."""
    member = write_numbered(path.with_name("member.h5"), arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(member, "model.weights.h5")
    member.unlink()
    return path


def write_ours(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    return write_canonical(path, arrays, **Conventions(BGR_MINUS_MEANS).to_dict())


WRITERS = {
    "legacy h5": write_named,
    "legacy h5 of Keras 1": lambda path, arrays: write_named(path, arrays, oldest=True),
    "saved model": lambda path, arrays: write_named(path, arrays, prefix="model_weights/"),
    "inside another model": lambda path, arrays: write_named(path, arrays, prefix="model_weights/vgg19/"),
    "weights.h5": write_numbered,
    "keras archive": write_archive,
    "canonical safetensors": write_ours,
}


def assert_same(loaded: Pretrained, arrays: dict[str, np.ndarray]) -> None:
    found = flatten_dict(loaded.params, sep="/")
    assert found.keys() == arrays.keys()
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_numbers_with_its_conventions(tmp_path, vgg, layout):
    path = WRITERS[layout](tmp_path / "weights", vgg)
    loaded = load_vgg(path)
    assert_same(loaded, vgg)
    assert not any(loaded.stats.values())
    assert loaded.conventions == Conventions(BGR_MINUS_MEANS)
    assert loaded.backbone == loaded.provenance["backbone"] == "vgg19"
    assert "batch_norm_scale" not in loaded.provenance
    assert_same(load_vgg(path, backbone=None), vgg)  # found out


@pytest.mark.slow
@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_has_its_top_left_out_or_loaded(tmp_path, vgg, top, layout):
    path = WRITERS[layout](tmp_path / "weights", vgg | top)
    assert_same(load_vgg(path), vgg)
    loaded = load_vgg(path, with_top=True)
    assert_same(loaded, vgg | top)
    assert list(loaded.params) == ["block1", "block2", "block3", "block4", "block5", "fc1", "fc2", "logits"]
    assert len(loaded.classes) == (0 if layout.startswith("canonical") else 1000)


def test_the_cut_leaves_out_what_comes_after_it(tmp_path, vgg):
    path = write_named(tmp_path / "weights", vgg)
    assert list(load_vgg(path, cut="block3").params) == ["block1", "block2", "block3"]
    with pytest.raises(
        WeightsError, match="top reads the output of block5: set --config.model.cut=block5, not 'block3'"
    ):
        load_vgg(path, cut="block3", with_top=True)


def test_the_shapes_are_those_of_keras_own_network():
    shapes, top = strict.expected("vgg19", 1.0), strict.expected_top("vgg19", 1.0)
    assert top["fc1/kernel"] == (25088, 4096)
    assert top["logits/kernel"] == (4096, 1000)
    count = sum(int(np.prod(shape)) for shape in [*shapes.values(), *top.values()])
    assert count == 143_667_240  # as VGG19().count_params() has it


def test_what_a_file_may_cost_goes_by_its_backbone():
    inception, vgg = strict.limits("inception_v3"), strict.limits("vgg19")
    assert (inception.values, vgg.values) == (2**24, 102_760_448)
    assert 290 * 2**20 < inception.size < 320 * 2**20
    assert 3 * 574 * 10**6 < vgg.size < 2.1e9
    assert strict.limits(None) == vgg


def test_a_missing_and_a_foreign_tensor_are_shown(tmp_path, vgg):
    path = write_named(tmp_path / "weights", vgg)
    with h5py.File(path, "r+") as file:
        del file["block3_conv4"]
        file["conv2d_1/conv2d_1/kernel:0"] = np.ones((3, 3, 3, 1), np.float32)
    with pytest.raises(WeightsError, match=r"not a whole VGG-19 of width 0.0156") as caught:
        load_vgg(path)
    assert "- block3/conv4/kernel (3, 3, 4, 4)" in str(caught.value)
    assert "+ [conv2d_1/conv2d_1/kernel:0] (3, 3, 3, 1)" in str(caught.value)


def test_two_tensors_in_one_place_are_refused(tmp_path, vgg):
    path = write_named(tmp_path / "weights", vgg)
    with h5py.File(path, "r+") as file:
        file["block1_conv1/block1_conv1_W_1:0"] = np.ones((3, 3, 3, 1), np.float32)
    with pytest.raises(WeightsError, match=r"\+ \[block1_conv1/block1_conv1_W_1:0\]|\+ \[block1_conv1/.*kernel:0\]"):
        load_vgg(path)


def test_a_top_of_other_classes_is_refused(tmp_path, vgg, top):
    other = top | {"logits/kernel": np.ones((4096, 10), np.float32), "logits/bias": np.ones(10, np.float32)}
    with pytest.raises(WeightsError, match="its top has 10 classes and not ImageNet's 1000"):
        load_vgg(write_named(tmp_path / "weights", vgg | other))


# weights of the other backbone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "asked", "found"), [
    ("keras-vgg19", "inception_v3", "VGG-19; set --config.model.backbone=vgg19"),
    ("keras-imagenet", "vgg19", "Inception-v3; set --config.model.backbone=inception_v3"),
    ("torchvision", "vgg19", "Inception-v3; set --config.model.backbone=inception_v3"),
])  # fmt: skip
def test_a_published_name_of_another_backbone_is_refused_before_the_download(name, asked, found):
    with pytest.raises(WeightsError, match=f"'{name}' are weights of {found}"):
        load_pretrained(name, backbone=asked)


@pytest.mark.parametrize("layout", small.slow_except(["legacy h5", "canonical safetensors"], WRITERS))
def test_a_file_of_vgg_is_not_taken_for_inception(tmp_path, vgg, top, layout):
    path = WRITERS[layout](tmp_path / "weights", vgg | top)
    with pytest.raises(WeightsError, match="weights are weights of VGG-19; set --config.model.backbone=vgg19"):
        load(path)


def test_a_top_larger_than_any_array_of_inception_does_not_hide_whose_it_is(tmp_path, vgg):
    path = write_named(tmp_path / "weights", vgg)
    with h5py.File(path, "r+") as file:
        file.create_dataset("fc1/fc1/kernel:0", (25088, 4096), np.float32)  # declared: nothing is written
    with pytest.raises(WeightsError, match="weights are weights of VGG-19; set --config.model.backbone=vgg19"):
        load(path)


def test_a_canonical_file_with_the_top_cannot_ask_for_images_that_it_does_not_fit(tmp_path, vgg, top):
    evaluation = {"image_size": 4096, "resize": "timm", "source": "x"}
    path = write_canonical(tmp_path / "weights", vgg | top, evaluation=evaluation)
    with pytest.raises(WeightsError, match="evaluation.image_size=4096, which must be 224 for its top"):
        load_vgg(path)
    write_canonical(path, vgg, evaluation=evaluation | {"image_size": 31})
    with pytest.raises(WeightsError, match="evaluation.image_size=31, which must be at least 32"):
        load_vgg(path)


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_legacy, write_keras_3, write_canonical])
def test_a_file_of_inception_is_not_taken_for_vgg(tmp_path, network, write):
    path = write(tmp_path / "file", network)
    with pytest.raises(WeightsError, match="file are weights of Inception-v3; set --config.model.backbone=inception"):
        load_vgg(path)


def test_a_torch_file_of_another_network_is_refused_as_such(tmp_path):
    from safetensors.numpy import save_file

    save_file(torch_state(random_network()), tmp_path / "inception")
    with pytest.raises(WeightsError, match="are weights of Inception-v3"):
        load_vgg(tmp_path / "inception")
    save_file({"features.0.weight": np.ones((64, 3, 3, 3), np.float32)}, tmp_path / "vgg")
    with pytest.raises(WeightsError, match="not a whole VGG-19.*it holds another network"):
        load_vgg(tmp_path / "vgg")


@pytest.mark.parametrize("name", ["keras-vgg19", "keras-vgg19-top"])
def test_the_published_weights_name_their_authors_and_are_those_of_keras(name):
    spec = REGISTRY[name]
    assert spec.licence == "CC BY 4.0"
    for words in (
        "Visual Geometry Group, University of Oxford",
        "Simonyan",
        "Zisserman",
        "Very Deep",
        "licenses/by/4.0",
    ):
        assert words in spec.notice
    source = pytest.importorskip("keras").src.applications.vgg19
    assert spec.url == (source.WEIGHTS_PATH if spec.with_top else source.WEIGHTS_PATH_NO_TOP)
    assert f'"{spec.md5}"' in Path(source.__file__).read_text()


def test_preprocessing_is_that_of_keras():
    keras = pytest.importorskip("keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    theirs = keras.applications.vgg19.preprocess_input(images.astype(np.float32))
    ours = REGISTRY["keras-vgg19"].conventions.preprocessing.normalize(images)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)  # of 255 grey levels


# parity ---------------------------------------------------------------------------------------------------------------


def randomize(model) -> None:
    """Numbers that keep activations of order one in every block."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel = rng.random(layer.kernel.shape, np.float32)
            kernel -= np.float32(0.5)
            kernel *= np.float32(np.sqrt(24 / np.prod(kernel.shape[:-1])))  # He, uniform
            layer.set_weights([kernel, rng.normal(0, 0.1, layer.bias.shape)])


@pytest.fixture(scope="module")
def keras_model():
    keras = pytest.importorskip("keras")
    model = keras.applications.VGG19(weights=None, include_top=False)
    randomize(model)
    return model


@pytest.fixture(scope="module")
def saved(keras_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "model.weights.h5"
    keras_model.save_weights(path)
    return path


def worst_ratio(found: Outputs, reference: Outputs) -> float:
    for name, expected in reference.items():
        assert 0.01 < np.abs(expected).max() < 100, (name, "not of order one: the comparison would mean little")
    return max(differences(found, reference).values())


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 130)], ids=str)
def test_every_block_equals_keras(keras_model, saved, height, width):
    images = random_images(height, width)
    reference = keras_outputs(keras_model, images, backbone="vgg19")
    assert list(reference) == ["block1", "block2", "block3", "block4", "block5", "average"]
    assert worst_ratio(jaxcat_outputs(load_vgg(saved, width=1.0), images), reference) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_keras_3_itself_saves_files_that_give_the_same_numbers(keras_model, saved, tmp_path, name):
    keras_model.save(tmp_path / name)
    assert_same(load_vgg(tmp_path / name, width=1.0), flatten_dict(load_vgg(saved, width=1.0).params, sep="/"))


@pytest.mark.slow
def test_the_logits_equal_keras(tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    model = keras.applications.VGG19(weights=None, classifier_activation=None)
    randomize(model)
    last = model.layers[-1]
    last.set_weights([array / 100 for array in last.get_weights()])  # else one probability of a photograph is 1
    path = str(tmp_path / "model.weights.h5")
    model.save_weights(path)
    load_once = functools.cache(load_pretrained)  # 574 MB
    monkeypatch.setattr(published, "load_pretrained", load_once)

    images = random_images(224, 224)
    expected = {"logits": np.asarray(model(images, training=False))}
    found = jaxcat_outputs(load_once(path, backbone=None, with_top=True), images)
    assert worst_ratio(found, expected) <= TOLERANCE
    by_block = keras_outputs(model, images, backbone="vgg19")
    assert list(by_block) == ["block1", "block2", "block3", "block4", "block5", "average", "logits"]
    assert worst_ratio(found, by_block) <= TOLERANCE

    photographs = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    fed = keras.applications.vgg19.preprocess_input(photographs.astype(np.float32))
    classifier = published.published_classifier(path)
    assert load_once.cache_info().misses == 1
    assert len(classifier.classes) == 1000
    expected = np.asarray(keras.ops.softmax(model(fed, training=False)))
    assert 0.01 < expected.max() < 0.99
    np.testing.assert_allclose(classifier.predict(list(photographs)), expected, atol=1e-4 * expected.max())


@pytest.mark.slow
def test_the_script_converts_and_compares(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(convert_weights, "sizes", lambda backbone: sizes(backbone)[:1])
    assert convert_weights.main([str(saved), str(tmp_path / "out.safetensors"), "--verify"]) == 0
    assert "worst difference from keras" in capsys.readouterr().out
    loaded = load_pretrained(str(tmp_path / "out.safetensors"), backbone="vgg19")
    assert loaded.conventions == Conventions(BGR_MINUS_MEANS)
    convert_weights.main([str(saved), "--inspect"])
    assert "32 of 32 tensors known as VGG-19's" in capsys.readouterr().out
