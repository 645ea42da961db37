"""The network against Keras's own, block by block, with random kernels and random batch-normalisation statistics.

Keras writes the file, jaxcat's loader reads it: a mix-up of two layers of equal shape cannot hide.
"""

from __future__ import annotations

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcat import inception
from jaxcat.weights import Pretrained, load_pretrained

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
    return load_pretrained(str(path), cut="mixed10", with_top=True)


def keras_outputs(keras_model, images: np.ndarray) -> dict[str, np.ndarray]:
    """mixed0 … mixed10, the global average and the logits, from the same layers applied to any image size."""
    import keras

    names = [name for name in inception.STAGES if name != "stem"]
    inputs = keras.Input((*images.shape[1:3], 3))
    model = keras.applications.InceptionV3(include_top=False, weights=None, input_tensor=inputs)
    body = [layer for layer in keras_model.layers if layer.name not in ("avg_pool", "predictions")]
    for copy, original in zip(model.layers, body, strict=True):
        copy.set_weights(original.get_weights())
    outputs = [model.get_layer(name).output for name in names]
    average = keras.layers.GlobalAveragePooling2D()(model.output)
    outputs += [average, keras_model.get_layer("predictions")(average)]
    values = keras.Model(inputs, outputs)(images, training=False)
    return {name: np.asarray(value) for name, value in zip([*names, "average", "logits"], values, strict=True)}


def jaxcat_outputs(pretrained: Pretrained, images: np.ndarray, *, dtype: str = "float32") -> dict[str, np.ndarray]:
    options = inception.Options(pool_counts_padding=pretrained.pool_counts_padding, dtype=dtype)
    stages = nnx.eval_shape(lambda: inception.build("mixed10", options))
    graphs = {name: nnx.split(stages[name], nnx.Param, nnx.BatchStat)[0] for name in inception.STAGES}

    @jax.jit
    def forward(params, stats, x):
        outputs = {}
        for name, graph in graphs.items():
            x = outputs[name] = nnx.merge(graph, params[name], stats[name])(x)
        outputs["average"] = x.astype(jnp.float32).mean(axis=(1, 2))
        outputs["logits"] = outputs["average"] @ params["logits"]["kernel"] + params["logits"]["bias"]
        return outputs

    return {name: np.asarray(value) for name, value in forward(pretrained.params, pretrained.stats, images).items()}


def worst_ratio(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """The largest max |difference| / max |reference| of any tensor."""
    ratios = {}
    for name, expected in reference.items():
        got = found[name].astype(np.float32)
        assert got.shape == expected.shape, name
        assert 0.01 < np.abs(expected).max() < 100, (name, "not of order one: the comparison would mean little")
        ratios[name] = float(np.abs(got - expected).max() / np.abs(expected).max())
    worst = max(ratios, key=lambda name: ratios[name])
    print(f"worst of {len(ratios)} tensors: {worst} {ratios[worst]:.2e}")
    return ratios[worst]


def random_images(height: int, width: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(height).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width"), [(75, 75), (150, 150), (299, 299), (151, 203)], ids=lambda side: str(side)
)
def test_every_block_equals_keras(keras_model, pretrained, height, width):
    images = random_images(height, width, batch=2)
    reference = keras_outputs(keras_model, images)
    assert worst_ratio(jaxcat_outputs(pretrained, images), reference) <= TOLERANCE


@pytest.mark.slow
def test_the_copied_layers_are_keras_own_network(keras_model):
    """`keras_outputs` rebuilds the model for other sizes: at 299 px it must give what the untouched one gives."""
    images = random_images(299, 299)
    rebuilt = keras_outputs(keras_model, images)["logits"]
    np.testing.assert_allclose(rebuilt, np.asarray(keras_model(images, training=False)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_is_close_with_float32_parameters(pretrained):
    images = random_images(75, 75)
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
    found = inception.average_pool(jnp.asarray(x), o=inception.Options(pool_counts_padding=counts_padding))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
