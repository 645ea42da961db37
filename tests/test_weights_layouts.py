"""Every layout gives the same numbers, and each brings its own conventions."""

from __future__ import annotations

import dataclasses
import hashlib

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from weights_files import (
    WIDTH,
    WRITERS,
    dataset_name,
    load,
    random_network,
    torch_state,
    write_canonical,
    write_keras_3,
    write_legacy,
    write_pth,
    write_torch_safetensors,
)

from jaxcat.data.images.resizing import RESIZES as RESIZES_OF_DATA
from jaxcat.errors import WeightsError
from jaxcat.models.preprocessing import Conventions
from jaxcat.models.wiring import BN_EPSILON
from jaxcat.weights import strict
from jaxcat.weights.imagenet import imagenet_classes
from jaxcat.weights.registry import REGISTRY, RESIZES

TOP = {"kernel": (102, 1000), "bias": (1000,)}


@pytest.fixture(scope="module")
def network() -> dict[str, np.ndarray]:
    return random_network()


def flat(loaded) -> dict[str, np.ndarray]:
    return flatten_dict(loaded.params, sep="/") | flatten_dict(loaded.stats, sep="/")


def assert_same(loaded, network: dict[str, np.ndarray]) -> None:
    found = flat(loaded)
    assert found.keys() == network.keys()
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, network[name], err_msg=name)


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_numbers_whatever_the_file_is_called(tmp_path, network, layout):
    if layout == "torch pth":
        pytest.importorskip("torch")
    path = WRITERS[layout](tmp_path / "weights", network)
    loaded = load(path)
    assert_same(loaded, network)
    assert loaded.conventions == Conventions(pool_counts_padding=not layout.startswith("keras"))
    assert loaded.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_writes_two_formats_and_checkpoints_around_a_state_dict(tmp_path, network, zipped):
    torch = pytest.importorskip("torch")
    assert_same(load(write_pth(tmp_path / "model.pth", network, zipped=zipped)), network)
    state = {f"module.{name}": torch.from_numpy(array) for name, array in torch_state(network).items()}
    checkpoint = {"epoch": 3, "state_dict": state}
    torch.save(checkpoint, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=zipped)
    assert_same(load(tmp_path / "checkpoint.pth"), network)


def test_without_torch_a_pth_names_the_extra_and_the_way_around(tmp_path, monkeypatch):
    import pickle
    import sys
    import zipfile

    monkeypatch.setitem(sys.modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    with pytest.raises(WeightsError, match="pip install .*torch.*timm/inception_v3.tv_in1k"):
        load(tmp_path / "model.pth")


def test_keras_2_archives_of_tensorflow_have_another_root(tmp_path, network):
    path = write_keras_3(tmp_path / "x", network, root="_layer_checkpoint_dependencies")
    assert_same(load(path), network)


@pytest.mark.slow
def test_a_network_that_is_a_layer_of_another_model_is_found_and_the_rest_named(tmp_path, network):
    path = write_keras_3(tmp_path / "x", network, root="layers/functional/layers")
    with h5py.File(path, "r+") as file:
        file["layers/dense/vars/0"] = np.ones((100, 2), np.float32)
        file["optimizer/vars/0"] = np.int64(3)
        file["layers/dropout/seed_generator/vars/0"] = np.ones(2, np.uint32)
    loaded = load(path)
    assert_same(loaded, network)
    assert loaded.provenance["left_out"] == ["dense/vars/0"]

    path = tmp_path / "y"
    with h5py.File(path, "w") as file:
        for name, array in network.items():
            file["model_weights/inception_v3/" + dataset_name(name, first=1).partition("/")[2]] = array
        file["model_weights/dense/dense/kernel:0"] = np.ones((100, 2), np.float32)
    loaded = load(path)
    assert_same(loaded, network)
    assert loaded.provenance["left_out"] == ["dense/dense/kernel:0"]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float64])
def test_other_precisions_become_float32(tmp_path, network, dtype):
    rounded = {name: array.astype(dtype) for name, array in network.items()}
    path = write_torch_safetensors(tmp_path / "x", rounded | {"stem/conv1/bn/scale": np.ones(2, np.float32)})
    assert_same(load(path), {name: array.astype(np.float32) for name, array in rounded.items()})


def test_batch_norm_s_scale_is_folded_exactly(tmp_path, network):
    """Scales of any sign, zero included, against the formula of torch.nn.BatchNorm2d."""
    scale = np.float32([-1.5, 0.0])
    path = write_torch_safetensors(tmp_path / "x", network | {"stem/conv1/bn/scale": scale})
    loaded = load(path)
    assert loaded.provenance["batch_norm_scale"] == "folded into 1 of 94 kernels"
    found = {name: array.astype(np.float64) for name, array in flat(loaded).items()}
    responses = np.random.default_rng(0).random((50, 27))
    original = {name: array.astype(np.float64) for name, array in network.items() if name.startswith("stem/conv1/")}

    def normalised(arrays, scale):
        x = responses @ arrays["stem/conv1/conv/kernel"].reshape(27, 2)
        x = (x - arrays["stem/conv1/bn/mean"]) / np.sqrt(arrays["stem/conv1/bn/var"] + BN_EPSILON)
        return x * scale + arrays["stem/conv1/bn/bias"]

    np.testing.assert_allclose(normalised(found, 1.0), normalised(original, scale), rtol=1e-5)
    plain = load(write_torch_safetensors(tmp_path / "y", network))
    assert plain.provenance["batch_norm_scale"] == "all ones"


def test_the_label_offset_drops_the_classes_before_the_first(tmp_path, network, monkeypatch):
    top = {"fc.weight": np.ones((1001, 102), np.float32), "fc.bias": np.arange(1001, dtype=np.float32)}
    path = write_torch_safetensors(tmp_path / "model.safetensors", network, **top)
    with pytest.raises(WeightsError, match="its top has 1,001 classes"):
        load(path, with_top=True)
    spec = dataclasses.replace(REGISTRY["timm/inception_v3.tf_in1k"], name="offset", label_offset=1)
    monkeypatch.setitem(REGISTRY, "offset", spec)
    monkeypatch.setattr("jaxcat.weights.load._published", lambda *_, **__: path)
    logits = load("offset", with_top=True).params["logits"]
    assert {name: array.shape for name, array in logits.items()} == TOP
    np.testing.assert_array_equal(logits["bias"], np.arange(1, 1001))


def test_a_file_can_follow_the_conventions_of_published_weights(tmp_path, network):
    path = write_torch_safetensors(tmp_path / "x", network)
    gluon = load(path, like="timm/inception_v3.gluon_in1k")
    assert gluon.conventions.preprocessing.mean == (0.485, 0.456, 0.406)
    assert gluon.provenance["evaluation"]["resize"] == "timm"
    with pytest.raises(WeightsError, match="no published weights are called 'gluon'"):
        load(path, like="gluon")


def test_a_canonical_file_brings_its_own_conventions(tmp_path, network):
    odd = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    evaluation = {"image_size": 299, "resize": "torchvision", "source": "a test"}
    path = write_canonical(tmp_path / "x", network, preprocessing=odd, evaluation=evaluation, pool_counts_padding=False)
    loaded = load(path)
    assert loaded.conventions.to_dict() == {"preprocessing": odd, "pool_counts_padding": False}
    assert loaded.evaluation.resize == "torchvision"
    assert loaded.provenance["before"] == {"source": "a test"}


def test_a_published_name_must_have_its_published_layout(tmp_path, network, monkeypatch):
    path = write_legacy(tmp_path / "x", network)
    monkeypatch.setattr("jaxcat.weights.load._published", lambda *_, **__: path)
    with pytest.raises(WeightsError, match="has the layout keras-legacy-h5, 'torchvision' is published in torch"):
        load("torchvision")


def test_torchvision_s_transform_input_is_the_preprocessing_noted_for_it():
    """InceptionV3._transform_input on pixels normalised by ImageNet's mean and deviation, as its transforms do."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 3)).astype(np.float64)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    transformed = (pixels / 255 - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5
    ours = REGISTRY["torchvision"].conventions.preprocessing
    np.testing.assert_allclose((pixels / 255 - ours.mean) / ours.std, transformed, atol=1e-12)


def test_arrays_of_a_canonical_file_are_views_of_it(tmp_path, network):
    loaded = load(write_canonical(tmp_path / "x", network))
    assert not any(array.flags.owndata or array.flags.writeable for array in flat(loaded).values())


def test_the_class_list_is_imagenet_s():
    names = imagenet_classes()
    assert len(set(names)) == len(names) == 1000
    assert names[0] == "tench, Tinca tinca"
    assert names[281].startswith("tabby")
    assert names[999].startswith("toilet tissue")
    assert [name for name in names if name.startswith("crane")] == ["crane (n02012849)", "crane (n03126707)"]


def test_the_first_file_is_trusted_where_no_hash_is_published_and_others_are_not(
    tmp_path, network, monkeypatch, capsys
):
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path))
    spec = dataclasses.replace(REGISTRY["timm/inception_v3.tf_in1k"], name="unhashed", file="x.safetensors")
    monkeypatch.setitem(REGISTRY, "unhashed", spec)
    path = write_torch_safetensors(tmp_path / "x.safetensors", network)
    shapes = strict.expected("inception_v3", WIDTH)
    monkeypatch.setattr(strict, "expected", lambda backbone, width: shapes)
    load("unhashed", width=1.0)
    assert "trusted on first use" in capsys.readouterr().err
    load("unhashed", width=1.0)
    assert "trusted" not in capsys.readouterr().err
    write_torch_safetensors(path, random_network(seed=1))
    with pytest.raises(WeightsError, match="its sha256 is .*, the first one"):
        load("unhashed", width=1.0)


def test_the_resizes_that_a_file_may_name_are_those_there_are():
    assert set(RESIZES) == set(RESIZES_OF_DATA)
