"""Averages and standard deviations of blocks: against NumPy, of maps without variance, and while they are trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from test_steps import batch_of, begin

from jaxcat.models.head import Pool
from jaxcat.models.network import Network
from jaxcat.models.pooling import PooledPart
from jaxcat.models.preprocessing import Conventions
from jaxcat.system.compilation import jit
from jaxcat.training.origin import _features
from jaxcat.training.steps import boundary_input, make_train_step

SHAPES = {"a": (7, 5, 3), "b": (4, 4, 2)}


def maps_of(shapes: dict, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal((2, *shape), np.float32) for name, shape in shapes.items()}


def reference(maps: dict[str, np.ndarray], grid: int = 1) -> np.ndarray:
    """For each block all averages of its cells, then all standard deviations; NumPy's, in float64."""
    columns = []
    for values in maps.values():
        rows, across = ([(i * n // grid, -(-(i + 1) * n // grid)) for i in range(grid)] for n in values.shape[1:3])
        for statistic in (np.mean, np.std):
            columns += [
                statistic(values[:, a:b, c:d].astype(np.float64), axis=(1, 2)) for a, b in rows for c, d in across
            ]
    return np.concatenate(columns, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [1, 3])
def test_averages_and_then_deviations_of_each_block(grid):
    maps, pool = maps_of(SHAPES), Pool("avg_std", grid, SHAPES)
    expected = reference(maps, grid)
    assert pool.features == expected.shape[1]
    np.testing.assert_allclose(pool(maps), expected, rtol=1e-5, atol=1e-6)
    widths = {"a": 3 * grid**2, "b": 2 * grid**2}
    assert pool.parts == tuple(PooledPart(name, s, widths[name]) for name in widths for s in ("avg", "std"))
    np.testing.assert_array_equal(
        pool.part(pool.parts[2], {"b": maps["b"]}), Pool("avg", grid, SHAPES)(maps)[:, 3 * grid**2 :]
    )


@pytest.mark.parametrize(("kind", "statistics", "features"), [("max", ["max"], 5), ("flatten", ["flatten"], 137)])
def test_other_poolings_have_a_part_for_each_block(kind, statistics, features):
    pool = Pool(kind, 1, SHAPES)
    assert [part[:2] for part in pool.parts] == [(name, s) for name in SHAPES for s in statistics]
    assert pool(maps_of(SHAPES)).shape == (2, features)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", [{"pool": "avg"}, {"pool": "avg_std"}, {"pool": "avg_std", "train_from": "block2"}])
def test_float32_rows_give_the_boundary_what_images_give_it(changes, dtype):
    config = small.tiny_config()
    config.data.image_size = 32
    config.model.update({"backbone": "vgg19", "cut": "block2", "dtype": dtype, **changes})
    network = small.network(config)
    frozen, _ = network.split(*network.initialize(0))
    images = small.images(2, 32)
    expected = network.prefix(frozen, images)
    found = boundary_input(network, frozen, {"bottleneck": jnp.asarray(expected, jnp.float32)})
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_deviations_around_a_large_average_are_exact():
    """The average of squares less the squared average has no digit left here, and may be negative."""
    shape = {"a": (9, 9, 4)}
    maps = {"a": maps_of(shape)["a"] * np.float32(1e-2) + np.float32(1e3)}
    found = np.asarray(jax.jit(Pool("avg_std", 1, shape))(maps))[:, 4:]
    np.testing.assert_allclose(found, reference(maps)[:, 4:], rtol=2e-3)


def test_deviations_of_half_precision_maps_are_computed_in_single_precision():
    maps = {"a": maps_of(SHAPES)["a"].astype(jnp.bfloat16)}
    pool = Pool("avg_std", 1, {"a": SHAPES["a"]})
    found = pool.part(pool.parts[1], maps)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(maps)[:, 3:], rtol=1e-5)


@pytest.mark.parametrize("values", [np.float32(3.7), np.float32(0)])
@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 5, 3)])
def test_without_variance_deviation_and_gradient_are_zero(shape, values):
    if values and shape[0] > 1:
        values = np.float32(2)  # whose sum of 20 is exact
    pool = Pool("avg_std", 1, {"a": shape})
    x = np.full((2, *shape), values)
    of_std = lambda x: pool.part(pool.parts[1], {"a": x})  # noqa: E731
    np.testing.assert_array_equal(of_std(x), np.zeros((2, 3)))
    np.testing.assert_array_equal(jax.grad(lambda x: of_std(x).sum())(x), np.zeros_like(x))


def test_the_gradient_is_that_of_the_formula():
    """(x − mean) / (n · deviation)."""
    pool, x = Pool("avg_std", 1, {"a": (4, 4, 2)}), maps_of({"a": (4, 4, 2)})["a"]
    found = jax.grad(lambda x: pool.part(pool.parts[1], {"a": x}).sum())(x)
    x = x.astype(np.float64)
    axes = {"axis": (1, 2), "keepdims": True}
    np.testing.assert_allclose(found, (x - x.mean(**axes)) / (16 * x.std(**axes)), rtol=1e-4, atol=1e-7)


def tiny(**model):
    config = small.tiny_config()
    for name, value in {"cut": "mixed1", "pool_from": "stem", "pool": "avg_std", **model}.items():
        config.model[name] = value
    return config


@pytest.mark.parametrize("conventions", [Conventions(), Conventions(pool_counts_padding=True)], ids=str)
def test_the_features_are_statistics_of_the_maps(conventions):
    images = small.images(3)
    whole, network = (small.network(tiny(pool=kind), conventions=conventions) for kind in ("flatten", "avg_std"))
    frozen, _ = network.split(*network.initialize(0))
    flat = np.asarray(jit(whole.prefix)(frozen, images))
    maps, begin_ = {}, 0
    for part, pair in zip(whole.parts, zip(network.parts[::2], network.parts[1::2], strict=True), strict=True):
        assert pair[0].width == pair[1].width
        side = int(np.sqrt(part.width // pair[0].width))
        maps[part.block] = flat[:, begin_ : begin_ + part.width].reshape(3, side, side, pair[0].width)
        begin_ += part.width
    found = np.asarray(jit(network.prefix)(frozen, images))
    np.testing.assert_allclose(found, reference(maps), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_some_parts_need_only_the_blocks_up_to_theirs():
    images, network = small.images(3), small.network(tiny())
    frozen, _ = network.split(*network.initialize(0))
    whole = np.asarray(jit(network.prefix)(frozen, images))
    wanted = [part for part in network.parts if part.block == "mixed0" or part == network.parts[1]]
    fewer = {name: {stage: tree[stage] for stage in ("stem", "mixed0", "pool")} for name, tree in frozen.items()}
    found = jit(lambda frozen, images: network.prefix_parts(frozen, images, wanted))(fewer, images)
    ends = np.cumsum([part.width for part in network.parts])
    expected = [whole[:, ends[i] - part.width : ends[i]] for i, part in enumerate(network.parts) if part in wanted]
    assert len(found) == 3
    for values, same in zip(found, expected, strict=True):
        np.testing.assert_allclose(values, same, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("cut", "dtype"), [("mixed0", "float32"), ("mixed8", "float32"), ("mixed0", "bfloat16")])
def test_a_step_of_fine_tuning_is_finite(cut, dtype):
    """At 75 px mixed8 is one cell, of which all deviations are 0."""
    config = tiny(cut=cut, pool_from="cut", train_from=cut, train_bn=True, dtype=dtype)
    network, tx, state, frozen = begin(config)
    before = jax.tree.map(np.asarray, state.trained)
    state = jit(make_train_step(network, tx, seed=0))(state, frozen, batch_of(8))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.trained, state.stats)))
    moved = jax.tree.map(lambda new, old: bool((new != old).any()), state.trained, before)
    assert all(jax.tree.leaves(moved))


def test_a_head_on_other_statistics_is_not_taken_over():
    assert _features(tiny().model) != _features(tiny(pool="avg").model)


@pytest.mark.slow
def test_the_features_are_those_of_keras(tmp_path):
    keras = pytest.importorskip("keras")
    from jaxcat.weights.load import load_pretrained
    from jaxcat.weights.verify import keras_outputs

    keras.utils.set_random_seed(0)
    model = keras.applications.InceptionV3(weights=None, include_top=False)
    model.save_weights(tmp_path / "model.weights.h5")
    found = load_pretrained(str(tmp_path / "model.weights.h5"))
    config, images = tiny(cut="mixed10", pool_from="mixed0", width=1.0), small.images(2, 139)
    config.data.image_size = 139
    network: Network = small.network(config, conventions=found.conventions)
    trees = {"params": found.params, "stats": found.stats}
    frozen = {name: {stage: tree.get(stage, {}) for stage in network.prefix_stages} for name, tree in trees.items()}
    features = np.asarray(jit(network.prefix)(frozen, images))
    outputs = keras_outputs(model, images.astype(np.float32) / 127.5 - 1)
    expected = reference({block: outputs[block] for block in network.pooled})
    assert features.shape == expected.shape == (2, 20096)
    ends = np.cumsum([part.width for part in network.parts])[:-1]
    for ours, theirs in zip(np.split(features, ends, axis=1), np.split(expected, ends, axis=1), strict=True):
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
