"""scripts/convert_weights.py --verify: which files it compares with their framework, and what it says without one."""

from __future__ import annotations

import functools
import sys
import types
from pathlib import Path

import convert_weights
import numpy as np
import pytest
from safetensors.numpy import save_file
from weights_files import golden_state, torch_state, write_keras_3, write_legacy

from jaxcat.errors import WeightsError
from jaxcat.weights.strict import expected
from jaxcat.weights.verify import bare_state, random_images, reference


@pytest.fixture(autouse=True)
def one_size(monkeypatch):
    """The smallest will do: which numbers go where does not depend on it."""
    monkeypatch.setattr(convert_weights, "sizes", lambda backbone: ((75, 75),))


def convert(source: Path, *flags: str) -> int:
    return convert_weights.main([str(source), str(source.with_name("canonical.safetensors")), "--verify", *flags])


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["keras", "timm"])
def test_without_the_framework_nothing_is_compared_and_that_is_no_failure(tmp_path, monkeypatch, capsys, framework):
    network = {name: np.ones(shape, np.float32) for name, shape in expected("inception_v3", 1.0).items()}
    if framework == "keras":
        write_legacy(tmp_path / "source", network)
    else:
        save_file(torch_state(network), tmp_path / "source")
        monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))  # imported first, not used
    monkeypatch.setitem(sys.modules, framework, None)
    assert convert(tmp_path / "source") == 0
    printed = capsys.readouterr().out
    assert "loads in" in printed
    assert f"not compared: {framework} is not installed" in printed


@pytest.fixture(scope="module")
def model():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    return keras.applications.InceptionV3(weights=None)


@pytest.fixture(scope="module")
def built_once(model):
    """Keras builds the network that it reads files into once. (`model`, from which the files come, is another.)"""
    import small_keras

    with small_keras.built_once("InceptionV3"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.h5", "weights.h5", "model.weights.h5", "model.keras"])
def test_keras_files_without_a_top_are_compared(tmp_path, capsys, model, built_once, name):
    import keras

    path, body = tmp_path / name, keras.Model(model.inputs, model.get_layer("mixed10").output)
    if name == "weights.h5":  # as Keras 2 and Keras Applications write it
        h5py = pytest.importorskip("h5py")
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, body)
    elif name == "model.weights.h5":
        body.save_weights(path)
    else:
        body.save(path)
    assert convert(path) == 0
    assert "worst difference from keras" in capsys.readouterr().out


@pytest.mark.slow
def test_a_keras_archive_with_a_top_is_compared_with_and_without_it(tmp_path, monkeypatch, capsys, model):
    @functools.cache  # Keras need not read and compute the same twice
    def once(path: Path):
        name, outputs = reference(path)
        of_size = functools.cache(lambda *size: outputs(random_images(*size)))
        return name, lambda images: of_size(*images.shape[1:3])

    monkeypatch.setattr(convert_weights, "reference", once)
    model.save(tmp_path / "model.keras")
    assert convert(tmp_path / "model.keras") == 0
    assert "logits" in capsys.readouterr().out
    assert convert(tmp_path / "model.keras", "--no-top") == 0
    assert "logits" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_network_inside_another_model_says_why_it_cannot_be_compared(tmp_path, network):
    import h5py

    pytest.importorskip("keras")
    path = write_keras_3(tmp_path / "model.weights.h5", network, root="layers/functional/layers")
    with h5py.File(path, "r+") as file:
        file["layers/dense/vars/0"] = np.ones((100, 2), np.float32)
    with pytest.raises(WeightsError, match="layer of another model, beside dense/vars/0.*leave --verify out"):
        reference(path)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_a_state_dict_is_unwrapped_as_the_loader_does_it(wrapper):
    array = np.ones(2)
    state = {"module.fc.bias": array, "fc.weight": array, "epoch": 3}
    assert bare_state({wrapper: state, "optimizer": {}} if wrapper else state).keys() == {"fc.bias", "fc.weight"}


@pytest.mark.slow
@pytest.mark.parametrize("with_top", [True, False])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_checkpoints_of_torch_are_compared(tmp_path, capsys, wrapper, with_top):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    arrays = {name: array for name, array in golden_state().items() if with_top or not name.startswith("fc.")}
    state = {f"module.{name}" if wrapper else name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save({"epoch": 1, wrapper: state} if wrapper else state, tmp_path / "model.pth")
    assert convert(tmp_path / "model.pth") == 0
    assert "worst difference from torchvision" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("with_top", [True, False])
def test_safetensors_of_timm_are_compared(tmp_path, capsys, prefix, with_top):
    pytest.importorskip("torch")
    pytest.importorskip("timm")
    state = {f"{prefix}AuxLogits.fc.weight": np.ones((3, 2), np.float32)}
    state |= {prefix + name: array for name, array in golden_state().items() if with_top or not name.startswith("fc.")}
    save_file(state, tmp_path / "model.safetensors")
    assert convert(tmp_path / "model.safetensors") == 0
    assert "worst difference from timm" in capsys.readouterr().out
