"""Kills and signals at any moment, any number of threads: the run ends at the same bits."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import kill_test
import processes
import pytest
import small
from processes import Processes
from small_run import config, metrics, outcome

from jaxcat.data.records import order
from jaxcat.runs import recovery
from jaxcat.runs import workdir as workdirs
from jaxcat.train import train
from jaxcat.training import loop


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["bottleneck.views=0"],
        # computes bottlenecks, then many steps in one compiled loop
        ["bottleneck.views=3", "model.train_from=head", "model.train_bn=False", "checkpoint.every_steps=4"],
        ["train.stages=head::exact, mixed0:2:1e-3, mixed0:1:1e-4", "model.train_from=head", "model.pool_from=stem"],
    ],
    ids=["streaming", "loops on bottlenecks", "stages"],
)
def test_killed_at_random_moments(tmp_path, monkeypatch, capsys, settings):
    """The short form of what docs/reliability.md reports of 50 and more kills, streaming and on bottlenecks."""
    monkeypatch.setattr(kill_test, "subprocess", SimpleNamespace(Popen=processes.Forked, STDOUT=None))
    settings = ["--config.epochs=2", *(f"--config.{setting}" for setting in settings)]
    status = kill_test.test(tmp_path, settings, kills=4, generator=random.Random(0))
    out = capsys.readouterr().out
    assert status == 0, out
    assert "\n4 kills in " in out
    assert ", 0 of them different" in out


def interrupted(folder: Path, workdir: Path, *signals: signal.Signals, pause: float = 0.0) -> tuple[int, str]:
    """Status and output of a long run that gets these signals, `pause` seconds apart, after its first epoch."""
    arguments = ["--config", "configs/folder.py:trained", "--workdir", str(workdir), f"--config.data.dir={folder}"]
    arguments += ["--config.model.weights=none", "--config.model.width=0.0625", "--config.model.cut=mixed0"]
    arguments += ["--config.data.image_size=75", "--config.epochs=100000"]
    logs = workdir.with_name("logs")
    with Processes(1, ("-m", "jaxcat.train"), arguments, logs=logs, devices=1) as run:
        run.wait_for("epoch   1/")
        for number in signals:
            run.send(number, process=0)
            time.sleep(pause)
        (status,) = run.statuses(seconds=60)
        return status, run.output()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_leaves(folder, tmp_path, number, status):
    returned, output = interrupted(folder, tmp_path / "run", number)
    assert returned == status
    last = output.strip().splitlines()[-1]
    assert "the same command continues from" in output  # at a step or in a validation
    assert last.startswith("to continue: python -m jaxcat.train --config configs/folder.py:trained --workdir")
    recovery.verify(tmp_path / "run", workdirs.steps(tmp_path / "run")[-1])


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(folder, tmp_path):
    """Two in the same instant: the second finds the default action, and the process dies of it without a word more."""
    returned, output = interrupted(folder, tmp_path / "run", signal.SIGTERM, signal.SIGTERM, pause=0.003)
    assert returned in (-signal.SIGTERM, 143)
    if returned == -signal.SIGTERM:
        assert "to continue" not in output


@pytest.mark.slow
def test_interrupted_in_validation_and_at_the_end_of_an_epoch(folder, tmp_path, monkeypatch):
    """At every look there is, in turn: the run ends at the same bits."""
    settings = {"epochs": 2}
    assert train(config(folder, **settings), tmp_path / "whole") == 0
    at = small.InterruptedAt(0)
    monkeypatch.setattr(loop, "Interruption", at)
    for limit in (3, 5):  # the last of three steps, and the second batch of validation
        workdir = tmp_path / str(limit)
        at.at = limit
        assert train(config(folder, **settings), workdir) == 143
        at.at = 1  # again at once, wherever that is now
        assert train(config(folder, **settings), workdir) == 143
        at.at = 0
        assert train(config(folder, **settings), workdir) == 0
        assert outcome(workdir) == outcome(tmp_path / "whole"), limit


@pytest.mark.slow
def test_killed_before_old_checkpoints_were_removed(folder, tmp_path):
    """A finished run that is started again keeps the checkpoints that an untouched one keeps."""
    assert train(config(folder), tmp_path / "run") == 0
    kept = workdirs.steps(tmp_path / "run")
    shutil.copytree(tmp_path / f"run/checkpoints/{kept[-1]}", tmp_path / "run/checkpoints/1")
    assert train(config(folder), tmp_path / "run") == 0
    assert workdirs.steps(tmp_path / "run") == kept


@pytest.mark.slow
@pytest.mark.parametrize("views", [0, 2])
def test_the_same_seed_gives_the_same_run_with_any_number_of_threads(folder, tmp_path, monkeypatch, views):
    settings = {"data.augment": "article", "model.dropout": 0.3, "bottleneck.views": views}
    for name, threads in (("one", 1), ("six", 6)):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / f"cache_{name}"))
        assert train(config(folder, **settings), tmp_path / name) == 0
    assert train(config(folder, **settings, seed=1), tmp_path / "other") == 0
    assert outcome(tmp_path / "one") == outcome(tmp_path / "six")
    assert metrics(tmp_path / "one") != metrics(tmp_path / "other")
    assert (order(24, seed=0, epoch=0) != order(24, seed=1, epoch=0)).any()
