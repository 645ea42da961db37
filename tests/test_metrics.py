"""Metrics as named sums: right by hand, in every record, and kept by the run that began with them."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
import small
from sklearn.metrics import top_k_accuracy_score
from small_run import metrics

from jaxcat import evaluate
from jaxcat.objectives.metrics import METRICS, metrics_for
from jaxcat.objectives.sums import averages, masked_sums
from jaxcat.train import train


def test_more_than_five_classes_are_measured_by_five_guesses_too():
    assert metrics_for(5) == ("accuracy",)
    assert metrics_for(6) == ("accuracy", "top_5_accuracy")


def test_five_guesses_against_scikit_learn():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(200, 9)).astype(np.float32), generator.integers(0, 9, 200)
    hits = METRICS["top_5_accuracy"].of_rows(jnp.asarray(logits), jnp.asarray(labels))
    assert float(hits.mean()) == np.float32(top_k_accuracy_score(labels, logits, k=5))


def test_of_equal_logits_the_first_class_is_the_higher():
    hits = METRICS["top_5_accuracy"].of_rows(jnp.zeros((8, 8)), jnp.arange(8))
    assert hits.tolist() == [True] * 5 + [False] * 3


def test_sums_leave_out_padding_and_are_divided_once():
    logits = jnp.asarray([[4.0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5.0], [jnp.nan] * 6])
    batch = {"label": jnp.asarray([0, 0, 0]), "mask": jnp.asarray([True, True, False])}
    found = averages(masked_sums(logits, batch, metrics_for(6)), metrics_for(6))
    assert (found["accuracy"], found["top_5_accuracy"]) == (0.5, 0.5)
    assert np.isfinite(found["loss"])


@pytest.mark.slow
def test_a_run_of_many_classes_reports_and_evaluates_five_guesses(tmp_path):
    config = small.tiny_config()  # ten digits
    config.epochs = 1
    assert train(config, tmp_path / "run") == 0
    (entry,) = metrics(tmp_path / "run")
    assert 0 <= entry["validation/accuracy"] <= entry["validation/top_5_accuracy"] <= 1
    assert evaluate.main(["--workdir", str(tmp_path / "run")]) == 0
    figures = json.loads((tmp_path / "run/evaluation/validation.json").read_text())
    assert figures["top_5_accuracy"] == entry["validation/top_5_accuracy"]
