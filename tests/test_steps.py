"""The train step: what is frozen stays, what is trained moves, and Keras would have done the same."""

from __future__ import annotations

import os

import jax
import numpy as np
import optax
import pytest
import small

from jaxcat.models import chunks
from jaxcat.models.network import Network
from jaxcat.objectives.losses import losses
from jaxcat.objectives.sums import masked_sums
from jaxcat.system.compilation import compiler_options, jit
from jaxcat.system.devices import make_mesh, padded_batch_size, place_replicated, replicated, to_global
from jaxcat.training.optim import make_optimizer
from jaxcat.training.queue import STEPS_AHEAD, InLine
from jaxcat.training.steps import make_eval_step, make_train_step, new_state

CPU = jax.devices("cpu")


def begin(config, *, classes: int = 2, steps: int = 100):
    """(network, optimizer, state, frozen) as numpy, from scratch."""
    network = small.network(config, classes)
    tx = make_optimizer(config.optim, network.labels, steps=steps, steps_per_epoch=10)
    params, stats = network.initialize(config.seed)
    (frozen, trained), (frozen_stats, trained_stats) = network.divide(params), network.divide(stats)
    return network, tx, new_state(trained, trained_stats, tx), {"params": frozen, "stats": frozen_stats}


def batch_of(count: int, classes: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    labels = np.random.default_rng(seed).integers(0, classes, count).astype(np.int32)
    return {"image": small.images(count, seed=seed), "label": labels, "mask": np.ones(count, bool)}


def pad(batch: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    return {k: np.concatenate([v, np.zeros((rows - len(v), *v.shape[1:]), v.dtype)]) for k, v in batch.items()}


def bytes_of(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("train_from", ["head", "mixed0"])
def test_frozen_is_frozen_bit_for_bit(train_from):
    config = small.tiny_config()
    config.model.cut, config.model.train_from = "mixed1", train_from
    config.optim.name, config.optim.weight_decay, config.optim.clip_norm = "adamw", 0.1, 1.0
    network, tx, state, frozen = begin(config)
    before, stats_before, trained_before = bytes_of(frozen), bytes_of(state.stats), bytes_of(state.trained)
    step = jit(make_train_step(network, tx, seed=0))
    for i in range(20):
        state = step(state, frozen, batch_of(8, seed=i))
    assert bytes_of(frozen) == before
    assert bytes_of(state.stats) == stats_before, "train_bn=False: no statistic moves, not even of trained blocks"
    assert all(new != old for new, old in zip(bytes_of(state.trained), trained_before, strict=True))
    assert "stem" in frozen["params"]
    assert "stem" not in state.trained


@pytest.mark.slow
def test_the_partition_is_a_second_lock_on_the_full_tree():
    """Gradients of ones and weight decay on all parameters: what is labelled frozen must not move, nor carry state."""
    config = small.tiny_config()
    config.model.cut, config.model.train_from = "mixed1", "mixed1"
    config.optim.name, config.optim.weight_decay = "adamw", 0.5
    network = small.network(config)
    params, _ = network.initialize(0)
    tx = make_optimizer(config.optim, network.labels, steps=10, steps_per_epoch=10)
    state = tx.init(params)
    updates, state = jit(tx.update)(jax.tree.map(np.ones_like, params), state, params)
    moved = optax.apply_updates(params, updates)
    for stage in network.stages:
        same = bytes_of(moved[stage]) == bytes_of(params[stage])
        assert same == (stage in ("stem", "mixed0", "pool")), stage
    trained = sum(leaf.size for stage in ("mixed1", "logits") for leaf in jax.tree.leaves(params[stage]))
    held = sum(leaf.size for leaf in jax.tree.leaves(state) if hasattr(leaf, "size") and leaf.ndim)
    assert held == 2 * trained, "Adam keeps two moments for what is trained and nothing for what is frozen"


@pytest.mark.slow
@pytest.mark.parametrize("train_from", ["head", "mixed0"])
def test_several_blocks_are_pooled_side_by_side(train_from):
    images = batch_of(4)["image"]

    def pooled(cut: str, pool_from: str) -> np.ndarray:
        config = small.tiny_config()
        config.model.train_from, config.model.cut, config.model.pool_from = train_from, cut, pool_from
        config.model.pool_grid = 2
        network = small.network(config)
        (frozen, trained), (frozen_stats, stats) = (network.divide(tree) for tree in network.initialize(0))
        seen = jit(network.prefix)({"params": frozen, "stats": frozen_stats}, images)
        if train_from != "head":
            size = trained["logits"]["kernel"].shape[0]
            trained["logits"] = {"kernel": np.eye(size, 1, dtype=np.float32), "bias": np.zeros(1, np.float32)}
            columns, suffix = [], jax.jit(network.suffix)
            for column in range(size):
                trained["logits"]["kernel"] = np.eye(size, 1, -column, dtype=np.float32)
                columns.append(np.asarray(suffix(trained, stats, seen)[0])[:, 0])
            return np.stack(columns, axis=1)
        return np.asarray(seen)

    apart = [pooled(cut, "cut") for cut in ("mixed0", "mixed1")]
    np.testing.assert_allclose(pooled("mixed1", "mixed0"), np.concatenate(apart, axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_prefix_has_no_backward_pass():
    """Work of the head-only step: forward pass and head, within 5 %."""
    config = small.tiny_config()
    config.model.cut, config.model.width = "mixed2", 0.25
    network, tx, state, frozen = begin(config)
    batch = batch_of(4)
    step = jit(make_train_step(network, tx, seed=0)).lower(state, frozen, batch).compile()
    forward = jit(make_eval_step(network)).lower(state.trained, state.stats, frozen, batch).compile()
    assert step.cost_analysis()["flops"] < 1.05 * forward.cost_analysis()["flops"]


@pytest.mark.parametrize(("count", "chunk"), [(6, 3), pytest.param(7, 7, marks=pytest.mark.slow), (2, 2)])
def test_the_prefix_in_chunks_gives_the_same(monkeypatch, count, chunk):
    config = small.tiny_config()
    network, _, _, frozen = begin(config)
    images = small.images(count)
    whole = jit(network.prefix)(frozen, images)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(chunks, "CHUNK_PIXELS", 4 * 75 * 75)
    assert chunks._chunk(images.shape) == chunk
    text = jit(lambda *arguments: network.prefix(*arguments)).lower(frozen, images).as_text()
    assert ("while" in text) == (chunk < count)
    chunked = jit(lambda *arguments: network.prefix(*arguments))(frozen, images)
    # Not the same bits on every processor: its caches decide how many rows are summed at a time.
    np.testing.assert_allclose(chunked, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_statistics_move_with_train_bn_only_where_trained():
    config = small.tiny_config()
    config.model.cut, config.model.train_from, config.model.train_bn = "mixed1", "mixed1", True
    network, tx, state, frozen = begin(config)
    before, frozen_before = bytes_of(state.stats), bytes_of(frozen)
    state = jit(make_train_step(network, tx, seed=0))(state, frozen, batch_of(8))
    assert all(new != old for new, old in zip(bytes_of(state.stats), before, strict=True))
    assert bytes_of(frozen) == frozen_before


@pytest.mark.slow
def test_what_training_keeps_is_float32_when_it_computes_in_bfloat16():
    config = small.tiny_config()
    config.model.cut = config.model.train_from = "mixed0"
    config.model.dtype, config.model.train_bn, config.optim.name = "bfloat16", True, "adam"
    network, tx, state, frozen = begin(config)
    state = jit(make_train_step(network, tx, seed=0))(state, frozen, batch_of(8))
    kept = [leaf.dtype for leaf in jax.tree.leaves(state) if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)]
    assert len(kept) > 3 * len(jax.tree.leaves(state.trained))
    assert set(kept) == {np.dtype(np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize(("count", "train_bn"), [(13, True), (16, True), (20, False)])
def test_one_device_and_eight_agree(count, train_bn):
    """Any batch size: 8 devices pad it, and padded rows take no part in loss, gradient, dropout or batch statistics.

    Of 13 images one device has a whole image and a padded row, and another padded rows only.

    Compiled with the fusion emitters, as users have it: without them the two differ by up to 2e-3 of a statistic.
    """
    as_users = {"xla_cpu_use_fusion_emitters": True} if "fusion_emitters" in os.environ.get("XLA_FLAGS", "") else {}
    config = small.tiny_config()
    config.model.dropout, config.model.hidden = 0.5, 12
    config.model.cut = config.model.train_from = "stem"
    config.model.train_bn = train_bn
    network, tx, start, frozen = begin(config)
    step = make_train_step(network, tx, seed=3)
    results = []
    for mesh in (jax.make_mesh((1,), ("data",), devices=CPU[:1]), make_mesh()):
        jitted = jax.jit(
            step,
            out_shardings=replicated(mesh),
            compiler_options=compiler_options() | as_users,
        )
        state, placed = place_replicated(mesh, start), place_replicated(mesh, frozen)
        trace = []
        for i in range(3):
            rows = pad(batch_of(count, seed=i), padded_batch_size(count, mesh))
            state = jitted(state, placed, to_global(mesh, rows))
            trace.append(float(state.sums["loss"]))
        results.append((trace, state))
    (one, state_one), (eight, state_eight) = results
    np.testing.assert_allclose(one, eight, rtol=2e-4)
    for a, b in zip(jax.tree.leaves(state_one.stats), jax.tree.leaves(state_eight.stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert int(state_eight.sums["count"]) == 3 * count


def test_padded_rows_do_not_count_even_if_not_a_number():
    logits = np.array([[2.0], [np.nan]], np.float32)
    batch = {"label": np.array([1, 0]), "mask": np.array([True, False])}
    sums = masked_sums(logits, batch, ("accuracy",))
    assert float(sums["loss"]) == pytest.approx(np.log1p(np.exp(-2.0)), rel=1e-6)
    assert (int(sums["correct"]), int(sums["count"])) == (1, 1)


def test_one_logit_and_two_give_the_same_loss():
    z = np.random.default_rng(0).normal(size=7).astype(np.float32)
    labels = np.arange(7) % 2
    np.testing.assert_allclose(
        losses(z[:, None], labels), losses(np.stack([0 * z, z], 1), labels), rtol=1e-5, atol=1e-6
    )


def test_the_first_bad_step_is_named():
    config = small.tiny_config()
    network, tx, state, frozen = begin(config)
    step = jit(make_train_step(network, tx, seed=0))
    state = step(state, frozen, batch_of(4))
    assert int(state.sums["bad_step"]) == -1
    broken = jax.tree.map(lambda leaf: leaf * np.nan, state.trained)
    state = step(step(state._replace(trained=broken), frozen, batch_of(4)), frozen, batch_of(4))
    assert int(state.sums["bad_step"]) == 1


@pytest.mark.slow
def test_dropout_depends_on_seed_and_step_alone():
    config = small.tiny_config()
    config.model.dropout = 0.5
    network, tx, state, frozen = begin(config)
    losses = [
        float(
            jit(make_train_step(network, tx, seed=seed))(state._replace(step=np.int32(n)), frozen, batch_of(8)).sums[
                "loss"
            ]
        )
        for seed, n in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_a_step_compiles_once():
    config = small.tiny_config()
    network, tx, state, frozen = begin(config)
    mesh = make_mesh()
    step = jit(make_train_step(network, tx, seed=0), donate_argnums=0, out_shardings=replicated(mesh))
    state, frozen = place_replicated(mesh, state), place_replicated(mesh, frozen)
    for i in range(3):
        state = step(state, frozen, to_global(mesh, pad(batch_of(5, seed=i), 8)))
    assert step._cache_size() == 1


def test_only_the_newest_steps_are_not_waited_for():
    class Result:
        waited_for = False

        def block_until_ready(self):
            self.waited_for = True

    results, line = [Result() for _ in range(7)], InLine()
    for count, result in enumerate(results, start=1):
        line.add(result)
        assert [each.waited_for for each in results] == [n < count - STEPS_AHEAD for n in range(7)]


@pytest.mark.slow
def test_equals_keras_step_by_step():
    """The same backbone, head and 20 batches, no dropout, no augmentation: RMSprop's losses agree to 1e-3."""
    keras = pytest.importorskip("keras")
    config = small.tiny_config()
    config.model.cut, config.model.width, config.model.hidden, config.model.pool = "mixed2", 1.0, 64, "flatten"
    config.optim.learning_rate = 1e-4
    network, tx, state, frozen = begin(config)
    keras.utils.set_random_seed(0)
    backbone = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(75, 75, 3))
    backbone.trainable = False
    copy_to_keras(frozen, backbone, network)
    x = keras.layers.Flatten()(backbone.get_layer("mixed2").output)
    x = keras.layers.Dense(64, activation="relu", name="hidden")(x)
    model = keras.Model(backbone.input, keras.layers.Dense(1, activation="sigmoid", name="logits")(x))
    for name in ("hidden", "logits"):
        model.get_layer(name).set_weights([state.trained[name]["kernel"], state.trained[name]["bias"]])
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.RMSprop(1e-4))

    step, ours, theirs = jit(make_train_step(network, tx, seed=0)), [], []
    for i in range(20):
        batch = batch_of(8, seed=i % 5)
        before = float(state.sums["loss"])
        state = step(state, frozen, batch)
        ours.append((float(state.sums["loss"]) - before) / 8)
        pixels = batch["image"].astype(np.float32) / 127.5 - 1
        theirs.append(float(model.train_on_batch(pixels, batch["label"][:, None].astype(np.float32))))
    worst = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
    print(f"20 RMSprop losses, largest relative difference from Keras: {worst:.1e}; {theirs[0]:.3f} → {theirs[-1]:.3f}")
    assert worst < 1e-3


def copy_to_keras(frozen: dict, backbone, network: Network) -> None:
    """Our frozen numbers into the Keras model, by order of creation."""
    from jaxcat.weights.keras_names import UNITS

    def created(kind: str) -> list:
        layers = [layer for layer in backbone.layers if layer.name.rstrip("_0123456789") == kind]
        return sorted(layers, key=lambda layer: int(layer.name.removeprefix(kind).lstrip("_") or 0))

    pairs = zip(UNITS, created("conv2d"), created("batch_normalization"), strict=True)
    for path, convolution, normalization in pairs:
        stage, unit = path.split("/")
        if stage in network.prefix_stages:
            params, stats = frozen["params"][stage][unit], frozen["stats"][stage][unit]
            convolution.set_weights([params["conv"]["kernel"]])
            normalization.set_weights([params["bn"]["bias"], stats["bn"]["mean"], stats["bn"]["var"]])
