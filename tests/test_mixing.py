"""Mixup and CutMix: rows and losses by hand, whatever the padding and the devices; and in a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_run
from jax.sharding import Mesh
from test_steps import CPU, batch_of, begin, pad

from jaxcat.objectives.sums import masked_sums
from jaxcat.runs import workdir as workdirs
from jaxcat.system.devices import make_mesh, place_replicated, replicated, to_global
from jaxcat.train import train
from jaxcat.training import loop
from jaxcat.training.mixing import MIXES, blended, mixed, partners_of, pasted
from jaxcat.training.steps import make_train_step

KEY = jax.random.key(5)


def keys(count: int):
    return jax.random.split(KEY, count)


@pytest.mark.slow
def test_every_row_that_counts_has_another_one_as_partner():
    draws = np.random.default_rng(0).random((50, 9), np.float32)
    mask = np.arange(9) < 6
    partners = np.asarray(jax.vmap(partners_of, (0, None))(draws, mask))
    assert (np.sort(partners[:, :6]) == np.arange(6)).all()
    assert (partners[:, :6] != np.arange(6)).all()
    assert (partners[:, 6:] == np.arange(6, 9)).all()
    assert len({tuple(row) for row in partners}) > 30
    assert partners_of(draws[0, :1], mask[:1]).tolist() == [0]


def test_mixup_by_hand():
    rows = np.uint8([[[[0, 100, 255]]], [[[10, 11, 12]]]])
    found, share = blended(jnp.asarray(rows), jnp.asarray(rows[::-1]), jnp.asarray([0.75, 0.5]), keys(2))
    assert found.tolist() == [[[[2, 78, 194]]], [[[5, 56, 134]]]]  # 2.5, 77.75, 194.25; 5, 55.5, 133.5: half to even
    assert found.dtype == np.uint8
    assert share.tolist() == [0.75, 0.5]
    halves, _ = blended(jnp.float16([[1.0, 2.0]]), jnp.float16([[3.0, -2.0]]), jnp.asarray([0.25]), keys(1))
    assert (halves.dtype, halves.tolist()) == (np.float16, [[2.5, -1.0]])


def test_cutmix_pastes_one_box_and_counts_its_pixels():
    count, height, width = 200, 12, 20
    share = jnp.linspace(0.5, 1, count)
    rows = jnp.zeros((count, height, width, 3), jnp.uint8)
    found, labels = pasted(rows, rows + jnp.uint8(9), share, keys(count))
    boxes = np.asarray(found)[..., 0] == 9
    assert (np.asarray(found) == 9 * boxes[..., None]).all()
    np.testing.assert_allclose(labels, 1 - boxes.mean(axis=(1, 2)), atol=1e-6)
    whole = 0
    for box, wanted in zip(boxes, np.asarray(share), strict=True):
        down, across = box.any(axis=1), box.any(axis=0)
        assert (box == down[:, None] & across).all(), "a box has four sides"
        assert not box.any() or (np.diff(np.flatnonzero(down)) == 1).all()
        sides = [size * np.sqrt(1 - wanted) for size in (height, width)]
        assert down.sum() <= sides[0] + 1
        assert across.sum() <= sides[1] + 1
        inside = not (down[[0, -1]].any() or across[[0, -1]].any())
        whole += inside
        assert not inside or abs(down.sum() - sides[0]) <= 1
    assert whole > 20
    assert boxes.mean(axis=0).min() > 0, "a box can lie anywhere"


@pytest.mark.parametrize("classes", [2, 4])
def test_the_loss_is_that_of_a_label_that_is_a_distribution(classes):
    generator = np.random.default_rng(0)
    outputs = 1 if classes == 2 else classes
    logits = generator.normal(size=(5, outputs)).astype(np.float32)
    label, other = generator.integers(0, classes, (2, 5))
    share, mask = generator.random(5).astype(np.float32), np.array([1, 1, 1, 1, 0], bool)
    batch = {"label": label, "other_label": other, "share": share, "mask": mask}
    full = np.concatenate([np.zeros((5, 1)), logits], axis=1) if outputs == 1 else logits.astype(np.float64)
    logs = full - np.log(np.exp(full).sum(axis=1, keepdims=True))
    targets = share[:, None] * np.eye(classes)[label] + (1 - share[:, None]) * np.eye(classes)[other]
    found = masked_sums(jnp.asarray(logits), {k: jnp.asarray(v) for k, v in batch.items()}, ("accuracy",))
    assert float(found["loss"]) == pytest.approx(-(targets * logs)[mask].sum(), rel=1e-5)


def test_shares_have_the_beta_distribution_folded_at_a_half():
    rows = 4000
    batch = {
        "bottleneck": np.zeros((rows, 1), np.float32),
        "label": np.zeros(rows, np.int32),
        "mask": np.ones(rows, bool),
    }
    share = np.asarray(mixed(batch, MIXES["mixup_bottlenecks"], alpha=0.4, key=KEY)["share"])
    drawn = np.random.default_rng(0).beta(0.4, 0.4, rows)
    expected = np.maximum(drawn, 1 - drawn)
    for quantile in (0.1, 0.25, 0.5, 0.75):
        assert np.quantile(share, quantile) == pytest.approx(np.quantile(expected, quantile), abs=0.02)


@pytest.mark.slow
def test_padding_and_devices_do_not_matter_and_every_step_mixes_anew():
    config = small.tiny_config()
    config.model.cut = "stem"
    network, tx, start, frozen = begin(config)
    step, found = make_train_step(network, tx, seed=3, mix="cutmix", mix_alpha=1.0), []
    for mesh, rows in ((Mesh(np.array(CPU[:1]), ("data",)), 5), (make_mesh(), 16)):
        jitted = jax.jit(step, out_shardings=replicated(mesh))
        state, placed = place_replicated(mesh, start), place_replicated(mesh, frozen)
        for _ in range(2):
            state = jitted(state, placed, to_global(mesh, pad(batch_of(5), rows)))
            found.append(float(state.sums["loss"]))
    one, both, on_eight, both_on_eight = found
    np.testing.assert_allclose([one, both], [on_eight, both_on_eight], rtol=1e-5)
    plain = jax.jit(make_train_step(network, tx, seed=3))(start, frozen, batch_of(5))
    assert len({round(loss, 5) for loss in (one, both - one, float(plain.sums["loss"]))}) == 3


@pytest.mark.slow
def test_a_run_on_mixed_bottlenecks_interrupted_and_continued_equals_uninterrupted(folder, tmp_path, monkeypatch):
    config = small_run.config(folder, **{"model.train_from": "head", "model.train_bn": False, "epochs": 2})
    config.bottleneck.views, config.optim.mix, config.model.cut = 1, "mixup_bottlenecks", "stem"
    config.optim.accumulate, config.batch_size = 2, 16
    config.optim.average, config.checkpoint.every_steps = 0.9, 1
    assert train(config, tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interruption", small.InterruptedAt(3))
        assert train(config, tmp_path / "cut") == 143
    assert 0 < workdirs.steps(tmp_path / "cut")[-1] < 4
    assert train(config, tmp_path / "cut") == 0
    assert small_run.outcome(tmp_path / "cut") == small_run.outcome(tmp_path / "whole")
