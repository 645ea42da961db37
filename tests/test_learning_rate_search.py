"""The sweep of learning rates: against copies trained one at a time, and in a run that keeps what was found."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import small
import small_run
from test_steps import batch_of, begin

import jaxcat
from jaxcat.errors import ConfigError
from jaxcat.objectives.losses import losses
from jaxcat.system.devices import make_mesh
from jaxcat.train import train
from jaxcat.training import learning_rate_search as search
from jaxcat.training import loop
from jaxcat.training.optim import make_optimizer
from jaxcat.training.search_batches import batches_of_fold
from jaxcat.training.steps import make_train_step

OPTIONS = {
    "metrics": ("accuracy",),
    "class_weights": None,
    "label_smoothing": 0.1,
    "average": 0.0,
    "accumulate": 1,
    "mix": "none",
    "mix_alpha": 0.2,
}


def test_rates_can_be_typed_and_batches_held_out_are_not_trained_on():
    assert search.OF_HEADS.rates[:5] == (1e-5, 1.8e-5, 3.2e-5, 5.6e-5, 1e-4)
    assert (search.OF_HEADS.rates[-1], search.OF_BLOCKS.rates[0], search.OF_BLOCKS.rates[-1]) == (10, 1e-6, 0.01)
    for batches in (2, 3, 7, 64):
        for fold in range(3):
            trained_on, measured_on = batches_of_fold(batches, fold, steps=150)
            assert not set(trained_on) & set(measured_on)
            assert set(trained_on) | set(measured_on) == set(range(batches))
            assert len(trained_on) == 150


def head_config():
    config = small.tiny_config()
    config.model.cut, config.model.hidden, config.model.dropout, config.epochs = "stem", 5, 0.3, 3
    config.optim.name, config.optim.schedule, config.optim.weight_decay = "adamw", "cosine", 0.01
    return config


def batches_for(network, frozen, *, classes: int) -> list[dict]:
    batches = [batch_of(6, classes, seed=seed) for seed in range(5)]
    prefix = jax.jit(network.prefix)
    return [{**batch, "bottleneck": prefix(frozen, batch.pop("image"))} for batch in batches]


@pytest.mark.slow
def test_copies_together_are_what_each_is_alone():
    """The losses of two rates and two folds against a loop that makes the optimizer anew for each rate."""
    config, steps = head_config(), 4
    network, _, state, frozen = begin(config, classes=3)
    batches = batches_for(network, frozen, classes=3)
    sweep = search.Sweep((0.003, 0.1), folds=2, steps=steps)
    options = {**OPTIONS, "seed": 7}
    copies = search.Copies(config, network, frozen=frozen, options=options, steps=steps, mesh=make_mesh())
    found = copies.together(copies.first({"params": state.trained, "stats": state.stats}), batches, sweep)
    for outcome in found:
        config.optim.learning_rate = outcome.rate
        tx = make_optimizer(config.optim, network.labels, steps=steps, steps_per_epoch=1)
        for fold, loss in enumerate(outcome.losses):
            step = jax.jit(make_train_step(network, tx, **OPTIONS, seed=7 + fold))
            alone = state._replace(opt_state=tx.init(state.trained))
            trained_on, (held,) = batches_of_fold(5, fold, steps=steps)
            for index in trained_on:
                alone = step(alone, frozen, batches[index])
            logits, _ = network.suffix(alone.trained, alone.stats, batches[held]["bottleneck"])
            assert loss == pytest.approx(float(np.mean(losses(logits, batches[held]["label"]))), rel=1e-4)
    assert found[0].losses != found[1].losses


def test_a_rate_that_diverges_in_one_fold_is_not_taken():
    outcomes = [search.Outcome(0.1, (0.1, float("nan")), 0.9), search.Outcome(0.2, (0.5, 0.5), 0.5)]
    assert min(outcomes, key=lambda outcome: outcome.loss).rate == 0.2


def run_config(folder, **changes):
    config = small_run.config(folder, **{"model.train_from": "head", "model.train_bn": False, "epochs": 2})
    config.bottleneck.views, config.model.cut = 1, "stem"
    config.update_from_flattened_dict(changes)
    return config


def test_a_run_finds_a_rate_and_trains_as_if_it_had_been_given(folder, tmp_path, capsys, monkeypatch):
    config = run_config(folder, **{"optim.find_learning_rate": True})
    monkeypatch.setattr(search, "OF_HEADS", search.Sweep((0.002, 0.01, 0.1), folds=2, steps=6))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interruption", small.InterruptedAt(5))
        assert train(config, tmp_path / "found") in (0, 143)
    assert "← least" in capsys.readouterr().out
    assert train(config, tmp_path / "found") == 0
    assert "← least" not in capsys.readouterr().out, "a run that continues keeps what it found"
    rate = jaxcat.load(tmp_path / "found").config.optim.learning_rate
    assert rate in (0.002, 0.01, 0.1)
    assert json.loads((tmp_path / "found/config.json").read_text())["optim"]["learning_rate"] == rate
    assert train(run_config(folder, **{"optim.learning_rate": rate}), tmp_path / "given") == 0
    assert small_run.outcome(tmp_path / "found") == small_run.outcome(tmp_path / "given")


@pytest.mark.slow
def test_blocks_are_swept_one_after_the_other(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search, "OF_BLOCKS", search.Sweep((1e-4, 1e-2), folds=1, steps=2))
    config = small_run.config(folder, **{"optim.find_learning_rate": True, "epochs": 1, "optim.mix": "cutmix"})
    config.model.cut = config.model.train_from = "stem"
    assert train(config, tmp_path) == 0
    assert "2 rates, 1 × 2 steps each, on 3 batches of train, 1 of them held out" in capsys.readouterr().out
    assert jaxcat.load(tmp_path).config.optim.learning_rate in (1e-4, 1e-2)


def test_a_single_batch_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="find_learning_rate=True needs two batches of train, and a batch of 100"):
        train(run_config(folder, **{"optim.find_learning_rate": True, "batch_size": 100}), tmp_path)
