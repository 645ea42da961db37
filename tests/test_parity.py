"""The network against Keras's, torchvision's and timm's, block by block, with random kernels and normalisations.

Keras writes the file, jaxcat's loader reads it: a mix-up of two layers of equal shape cannot hide. Torchvision's
outputs come from a file that tests/make_golden.py made; where torch is installed, both networks run side by side too.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import make_golden
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file
from weights_files import golden_state

from jaxcat.models import inception
from jaxcat.models.layers import Options, average_pool, max_pool
from jaxcat.weights.load import Pretrained, load_pretrained
from jaxcat.weights.verify import (
    Outputs,
    differences,
    jaxcat_outputs,
    keras_outputs,
    random_images,
    reference,
    sizes,
    torch_outputs,
)

SIZES = sizes("inception_v3")
TOLERANCE = 1e-4  # of the largest magnitude in the tensor


@pytest.fixture(scope="module")
def keras_model():
    """Keras's Inception-v3 with top, for any input size, whose activations stay of order one in every block."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = keras.applications.InceptionV3(weights=None, classifier_activation=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            shape = layer.kernel.shape
            scale = np.sqrt(2 / np.prod(shape[:3]))  # He: keeps the variance through convolution and ReLU
            layer.set_weights([rng.normal(0, scale, shape)])
        elif isinstance(layer, keras.layers.BatchNormalization):
            size = layer.beta.shape
            beta, mean, variance = rng.normal(0, 0.2, size), rng.normal(0, 0.2, size), rng.uniform(0.5, 1.5, size)
            layer.set_weights([beta, mean, variance])
        elif isinstance(layer, keras.layers.Dense):
            layer.set_weights([rng.normal(0, 0.05, layer.kernel.shape), rng.normal(0, 1, layer.bias.shape)])
    return model


@pytest.fixture(scope="module")
def pretrained(keras_model, tmp_path_factory) -> Pretrained:
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    path = tmp_path_factory.mktemp("parity") / "weights.h5"
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, keras_model)
    return load_pretrained(str(path), with_top=True)


def worst_ratio(found: Outputs, reference: Outputs) -> float:
    """The largest max |difference| / max |reference| of any tensor."""
    for name, expected in reference.items():
        assert 0.01 < np.abs(expected).max() < 100, (name, "not of order one: the comparison would mean little")
    ratios = differences(found, reference)
    worst = max(ratios, key=lambda name: ratios[name])
    print(f"worst of {len(ratios)} tensors: {worst} {ratios[worst]:.2e}")
    return ratios[worst]


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), SIZES, ids=str)
def test_every_block_equals_keras(keras_model, pretrained, height, width):
    images = random_images(height, width, batch=2)
    reference = keras_outputs(keras_model, images)
    assert worst_ratio(jaxcat_outputs(pretrained, images), reference) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.weights.h5", "model.keras", "model.h5"])
def test_keras_3_itself_saves_files_that_give_the_same_numbers(keras_model, pretrained, tmp_path, name):
    """Equal shapes do not hide a mix-up: every tensor is random and must arrive where the legacy numbers put it."""
    path = tmp_path / name
    keras_model.save_weights(path) if name == "model.weights.h5" else keras_model.save(path)
    found = load_pretrained(str(path), with_top=True)
    same = jax.tree.map(np.array_equal, (found.params, found.stats), (pretrained.params, pretrained.stats))
    assert all(jax.tree.leaves(same)), [key for key, equal in jax.tree.leaves_with_path(same) if not equal]


@pytest.mark.slow
def test_a_network_inside_a_keras_3_model_gives_the_same_numbers(keras_model, pretrained, tmp_path):
    import keras

    body = keras.Model(keras_model.input, keras_model.get_layer("mixed10").output)
    whole = keras.Sequential([body, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    whole.save_weights(tmp_path / "model.weights.h5")
    found = load_pretrained(str(tmp_path / "model.weights.h5"))
    kept = {stage: pretrained.params[stage] for stage in inception.STAGES}
    same = jax.tree.map(np.array_equal, (found.params, found.stats), (kept, pretrained.stats))
    assert all(jax.tree.leaves(same))
    assert found.provenance["left_out"] == ["dense/vars/0", "dense/vars/1"]


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "model.safetensors"
    save_file(golden_state(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), make_golden.SIZES, ids=str)
def test_every_block_equals_the_outputs_that_torchvision_and_timm_gave(torch_file, height, width):
    outputs = jaxcat_outputs(load_pretrained(str(torch_file), with_top=True), random_images(height, width))
    for framework in ("torchvision", "timm"):
        golden = json.loads(make_golden.PATH.read_text())[framework][f"{height}x{width}"]
        assert golden["values"].keys() == outputs.keys() - {"stem"}
        for name, expected in golden["values"].items():
            found = make_golden.sample({name: outputs[name]})[name]
            atol = TOLERANCE * golden["largest"][name]
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=f"{framework} {name}")


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), SIZES, ids=str)
@pytest.mark.parametrize("framework", ["torchvision", "timm"])
def test_every_block_equals_torch(torch_file, tmp_path, framework, height, width):
    torch = pytest.importorskip("torch")
    pytest.importorskip(framework)
    path = torch_file
    if framework == "torchvision":
        path = tmp_path / "model.pth"
        torch.save({name: torch.from_numpy(array) for name, array in golden_state().items()}, path)
    name, theirs = reference(path)
    assert name == framework
    images = random_images(height, width)
    pretrained = load_pretrained(str(path), with_top=True)
    assert worst_ratio(jaxcat_outputs(pretrained, images), theirs(images)) <= TOLERANCE


@pytest.mark.slow
def test_torchvision_s_auxiliary_classifier_is_left_out_and_its_transform_is_ours(tmp_path):
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    model = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=True)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in golden_state().items()}, strict=False)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    pretrained = load_pretrained(str(tmp_path / "model.pth"), with_top=True)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3)).astype(np.float32)
    ours = pretrained.conventions.preprocessing.normalize(pixels)
    normalised = (pixels / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    assert worst_ratio(jaxcat_outputs(pretrained, ours), torch_outputs(model, normalised)) <= TOLERANCE


@pytest.mark.slow
def test_keras_outputs_are_those_of_the_model_itself(keras_model):
    """`keras_outputs` does not call the model, which takes no other size: at 299 px it must give what that gives."""
    images = random_images(299, 299)
    logits = keras_outputs(keras_model, images)["logits"]
    np.testing.assert_allclose(logits, np.asarray(keras_model(images, training=False)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_is_close_with_float32_parameters(pretrained):
    images = random_images(75, 75, batch=2)
    exact, rounded = jaxcat_outputs(pretrained, images), jaxcat_outputs(pretrained, images, dtype="bfloat16")
    assert rounded["mixed10"].dtype == jnp.bfloat16
    assert rounded["logits"].dtype == np.float32
    assert 1e-5 < worst_ratio(rounded, exact) < 0.1  # 8 bits of mantissa through 48 layers


@pytest.mark.parametrize("counts_padding", [False, True])
def test_pooling_rules_differ_at_the_border_only_as_defined(counts_padding):
    x = np.random.default_rng(0).random((1, 4, 5, 2)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    real = np.pad(np.ones_like(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.empty_like(x)
    for row, column in np.ndindex(4, 5):
        window = np.s_[:, row : row + 3, column : column + 3]
        count = 9 if counts_padding else real[window].sum(axis=(1, 2))
        expected[:, row, column] = padded[window].sum(axis=(1, 2)) / count
    found = average_pool(jnp.asarray(x), o=Options(pool_counts_padding=counts_padding))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("side", [3, 4, 7, 8])
def test_max_pooling_is_that_of_windows_with_its_gradient(side):
    x = jnp.asarray(np.random.default_rng(side).standard_normal((2, side, side + 1, 3)), jnp.float32)

    def windows(x):
        return nnx.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")

    np.testing.assert_array_equal(max_pool(x), windows(x))
    ours, theirs = (jax.jit(jax.grad(lambda x, pool=pool: jnp.sum(pool(x) ** 2)))(x) for pool in (max_pool, windows))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.isnan(max_pool(x.at[0, 1, 1, 0].set(jnp.nan))[0, 0, 0, 0])
    shared = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x))))(jnp.ones_like(x))
    np.testing.assert_allclose(shared.sum(), windows(x).size)  # a gradient all the same where all are maxima
