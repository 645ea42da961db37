"""The moving average of the trained parameters: by hand, in checkpoints, in validation and whatever uses a run."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
import small
import small_run
from test_steps import batch_of, begin

import jaxcat
from jaxcat.evaluate import main as evaluate
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import workdir as workdirs
from jaxcat.runs.checkpoints import restore_items
from jaxcat.train import train
from jaxcat.training import loop
from jaxcat.training.averaging import decay_at
from jaxcat.training.origin import from_run
from jaxcat.training.steps import items_of, make_train_step, new_state, state_of


def test_the_decay_rises_to_what_was_asked_for():
    found = [float(decay_at(np.int32(step), 0.5)) for step in (0, 1, 4, 8, 100)]
    np.testing.assert_allclose(found, [1 / 10, 2 / 11, 5 / 14, 0.5, 0.5], rtol=1e-6)


def test_the_average_by_hand_and_the_parameters_as_without_it():
    network, tx, plain, frozen = begin(small.tiny_config())
    state = new_state(plain.trained, plain.stats, tx, average=True)
    step = jax.jit(make_train_step(network, tx, seed=0, average=0.3))
    without = jax.jit(make_train_step(network, tx, seed=0))
    expected = np.float64(plain.trained["logits"]["kernel"])
    for number in range(6):
        state, plain = (f(s, frozen, batch_of(8, seed=number)) for f, s in ((step, state), (without, plain)))
        kept = min(0.3, (1 + number) / (10 + number))
        expected = kept * expected + (1 - kept) * np.float64(state.trained["logits"]["kernel"])
    np.testing.assert_allclose(state.averaged["logits"]["kernel"], expected, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(state.averaged["logits"]["kernel"], state.trained["logits"]["kernel"])
    for a, b in zip(jax.tree.leaves(state.trained), jax.tree.leaves(plain.trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_items_come_back_and_without_an_average_they_are_what_they_were():
    network, tx, plain, frozen = begin(small.tiny_config())
    assert items_of(plain)["training"].keys() == {"opt_state", "step", "sums"}
    state = new_state(plain.trained, plain.stats, tx, average=True)
    state = jax.jit(make_train_step(network, tx, seed=0, average=0.9))(state, frozen, batch_of(8))
    items = items_of(state)
    assert items["model"]["params"] is state.averaged
    for each in (state, plain):
        again = state_of(items_of(each))
        assert jax.tree.structure(again) == jax.tree.structure(each)
        assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(each), strict=True))


@pytest.fixture(scope="module")
def averaged(tmp_path_factory, folder):
    """A finished run with an average, and its config."""
    config = small_run.config(folder, **{"model.train_from": "head", "model.train_bn": False, "epochs": 2})
    config.optim.average, config.optim.learning_rate = 0.95, 0.01
    workdir = tmp_path_factory.mktemp("averaged")
    assert train(config, workdir) == 0
    return config, workdir


def saved(workdir, config) -> tuple[dict, dict]:
    """The items "model" and "training" of the latest checkpoint."""
    meta = checkpoint_meta.read_meta(workdir, workdirs.steps(workdir)[-1])
    network, tx, state, _ = begin(config)
    state = new_state(state.trained, state.stats, tx, average=True)
    like = items_of(state)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    items = restore_items(workdir, meta, like=like, sharding=sharding)
    return items["model"], items["training"]


@pytest.mark.slow
def test_validation_evaluate_load_and_init_from_use_the_average(averaged, tmp_path, capsys):
    config, workdir = averaged
    model, training = saved(workdir, config)
    kernel = np.asarray(model["params"]["logits"]["kernel"])
    assert not np.array_equal(kernel, training["trained"]["logits"]["kernel"])
    latest = jaxcat.load(workdir, step="latest")
    np.testing.assert_array_equal(latest.params["logits"]["kernel"], kernel)
    evaluate(["--workdir", str(workdir), "--step", "latest", "--results-dir", str(tmp_path)])
    measured = json.loads((tmp_path / "validation.json").read_text())
    last = small_run.metrics(workdir)[-1]
    assert measured["loss"] == pytest.approx(last["validation/loss"], rel=1e-5)
    best = jaxcat.load(workdir)
    again = config.copy_and_resolve_references()
    again.init_from = str(workdir)
    origin = from_run(again, best.classes)
    np.testing.assert_array_equal(origin.params["logits"]["kernel"], best.params["logits"]["kernel"])


@pytest.mark.slow
def test_the_run_says_it_and_keeps_it_even_by_force(averaged, tmp_path, capsys, caplog):
    config, workdir = averaged
    shutil.copytree(workdir, tmp_path / "run")
    again = config.copy_and_resolve_references()
    again.optim.average, again.resume, again.epochs = 0.0, "force", 3
    assert train(again, tmp_path / "run") == 0
    assert "average stays 0.95" in caplog.text
    assert "optim.average=0.95" in capsys.readouterr().out
    assert jaxcat.load(tmp_path / "run").config.optim.average == 0.95


@pytest.mark.slow
def test_interrupted_and_continued_equals_uninterrupted(averaged, tmp_path, monkeypatch):
    config, workdir = averaged
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interruption", small.InterruptedAt(2))
        assert train(config, tmp_path / "cut") == 143
    assert train(config, tmp_path / "cut") == 0
    assert small_run.outcome(tmp_path / "cut") == small_run.outcome(workdir)
