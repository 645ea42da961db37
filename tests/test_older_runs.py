"""Workdirs that the jaxcat of 2026-11-25 wrote (commit 5ba74bc), before its modules became packages.

tests/data/older_workdirs.tar.gz holds `head`, a head on bottlenecks of a narrow backbone, and `finetuning`, which began
with that run and was stopped at step 6 of 20. older_workdirs.json has the metrics of `head`, and those of a run like
`finetuning` that nobody stopped.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import small
from ml_collections import ConfigDict
from small_run import metrics

import jaxcat
from jaxcat import evaluate
from jaxcat.errors import ConfigError
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import workdir as workdirs
from jaxcat.train import train

DATA = Path(__file__).parent / "data"
EXPECTED = json.loads((DATA / "older_workdirs.json").read_text())


@pytest.fixture
def older(tmp_path, monkeypatch) -> Path:
    """Both workdirs, in the working directory: `finetuning` names `head` by a relative path."""
    with tarfile.open(DATA / "older_workdirs.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(name: str) -> ConfigDict:
    """What was asked for then, in today's words: settings that were there are as they were, newer ones by default."""
    config = small.tiny_config()
    changes = {"model.cut": "mixed1", "model.pool_from": "mixed0"}
    if name == "head":
        changes |= {"bottleneck.views": 1, "epochs": 3, "optim.name": "adam", "optim.learning_rate": 3e-3}
    else:
        changes |= {"epochs": 4, "data.augment": "digits", "init_from": "head"}
        changes |= {"model.train_from": "mixed0", "model.train_bn": True}
    config.update_from_flattened_dict(changes)
    return config


def same(found: list[dict], expected: list[dict]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        numbers = {name: value for name, value in theirs.items() if name != "event"}
        assert {name: ours[name] for name in numbers} == pytest.approx(numbers, rel=1e-3)


@pytest.mark.slow
def test_a_run_is_loaded_and_evaluated_with_the_figures_of_its_training(older):
    classifier = jaxcat.load(older / "head")
    assert classifier.config.model.backbone == "inception_v3"
    assert classifier.predict(list(small.images(2))).shape == (2, 10)
    assert evaluate.main(["--workdir", str(older / "head")]) == 0
    figures = json.loads((older / "head/evaluation/validation.json").read_text())
    best = checkpoint_meta.best_epoch(EXPECTED["head"])
    assert figures["accuracy"] == best["validation/accuracy"]
    assert figures["loss"] == pytest.approx(best["validation/loss"], rel=1e-3)


@pytest.mark.slow
def test_a_finished_run_is_finished_and_an_extended_one_keeps_its_history(older, capsys):
    config = config_of("head")
    assert train(config, older / "head") == 0
    assert "this run is finished: 3 epochs" in capsys.readouterr().out
    config.epochs, config.resume = 4, "force"  # its pixels are of older versions
    assert train(config, older / "head") == 0
    same(metrics(older / "head")[:3], EXPECTED["head"])
    assert set(metrics(older / "head")[3]) == set(metrics(older / "head")[2]), "a run keeps the metrics it began with"


OLDER = r"decode version 1 → 3, resize version 1 → 2"


@pytest.mark.slow
def test_a_run_stopped_half_way_is_refused_for_its_pixels_and_by_force_ends_as_if_nobody_had_stopped_it(older, caplog):
    """A workdir that names no versions counts as version 1 of every step; digits have the same pixels in all."""
    assert workdirs.steps(older / "finetuning") == EXPECTED["interrupted_at"] == [5, 6]
    config = config_of("finetuning")
    with pytest.raises(ConfigError, match=rf"finetuning: .*{OLDER}.*--config.resume=force"):
        train(config, older / "finetuning")
    assert workdirs.steps(older / "finetuning") == [5, 6]
    jaxcat.load(older / "finetuning")
    assert f"pixels may differ from those the run was trained on: {OLDER}" in caplog.text
    config.resume = "force"
    assert train(config, older / "finetuning") == 0
    same(metrics(older / "finetuning"), EXPECTED["finetuning"])
    assert jaxcat.load(older / "finetuning", step="latest").meta.step_versions == checkpoint_meta.step_versions()
    shutil.rmtree(older / "head")  # never asked for again
    assert train(config_of("finetuning"), older / "finetuning") == 0


def test_what_a_checkpoint_says_comes_back_as_it_was_said(older):
    meta = checkpoint_meta.read_meta(older / "head", 15)
    assert dataclasses.asdict(checkpoint_meta.parse(meta.to_json())) == dataclasses.asdict(meta)
    assert meta.records is not None
    assert np.isfinite(meta.history[-1]["train/loss"])
