"""Several stages in one run: each is a run of its own, and an interruption changes no bit."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from small_run import outcome

import jaxcat
from jaxcat import evaluate, flags
from jaxcat.config import flatten
from jaxcat.errors import ConfigError
from jaxcat.models.completion import complete
from jaxcat.report.origins import _head, train_command
from jaxcat.runs.meta import read_meta
from jaxcat.runs.workdir import steps
from jaxcat.training import exact, loop
from jaxcat.training.ending import finished, following, next_stage
from jaxcat.training.stages import Stage, config_of, entries_of, stages_of

STAGES = "head::exact, block3:1:1e-3, block2:2:1e-4"
SETTINGS = {
    **{"model.backbone": "vgg19", "model.weights": "none", "model.width": 1 / 16, "data.image_size": 32},
    **{"model.cut": "block3", "model.pool_from": "block1", "model.pool": "avg_std", "model.dropout": 0.3},
    **{"optim.name": "adam", "bottleneck.dtype": "float32", "data.augment": "article", "batch_size": 9},
}


def config(folder: Path, stages: str = STAGES, **changes):
    result = small.tiny_config(folder)
    result.update_from_flattened_dict({**SETTINGS, "train.stages": stages, **changes})
    return result


# the request ----------------------------------------------------------------------------------------------------------


def test_a_request_is_read(folder):
    assert stages_of(config(folder)) == (
        Stage("head", 1, None),
        Stage("block3", 1, 1e-3),
        Stage("block2", 2, 1e-4),
    )
    assert stages_of(config(folder, "")) == ()
    assert stages_of(config(folder, "block3:1:0.5,block3:2:0.25")) == (
        Stage("block3", 1, 0.5),
        Stage("block3", 2, 0.25),
    )


@pytest.mark.parametrize(("stages", "says"), [
    ("head", "--config.train.stages: head: a stage is FROM:EPOCHS:LEARNING_RATE"),
    ("head:1:1e-3,", "--config.train.stages: : a stage is"),
    ("head:1:1e-3:2", "head:1:1e-3:2: a stage is"),
    ("blok3:1:1e-3", "blok3 must be one of head, block1, .*; did you mean block3"),
    ("head:few:1e-3", "the number of epochs is a whole number"),
    ("head:1.5:1e-3", "the number of epochs is a whole number"),
    ("head:0:1e-3", "epochs 0 must be at least 1"),
    ("head:1:-1e-3", "learning_rate -0.001 must be above 0"),
    ("head:1:nan", "learning_rate nan must be a finite number"),
    ("head:1:exact", "without epochs: write head::exact"),
    ("block3::exact", "only the head alone can be solved"),
    ("head:1:1e-3, head::exact", "only the first stage can be exact"),
    ("head::exact", "nothing follows: .*--config.optim.name=exact"),
    ("block3:1:1e-3, head:1:1e-3", "head:1:0.001: begins after block3: a stage may not freeze"),
    ("block2:1:1e-3, block3:1:1e-3", "begins after block2"),
    ("head:1:1e-3, block4:1:1e-3", r"\(stage 2 of 2, block4:1:0.001\): .*block4 lies beyond .*block3"),
])  # fmt: skip
def test_an_impossible_list_is_refused(folder, stages, says):
    with pytest.raises(ConfigError, match=says):
        flags.validate(config(folder, stages))


@pytest.mark.parametrize(("changes", "says"), [
    ({"optim.name": "exact"}, "--config.optim.name=exact with --config.train.stages: name the optimizer"),
    ({"model.train_from": "block3"}, "--config.model.train_from=block3 with --config.train.stages"),
    ({"model.pool_from": "auto", "model.cut": ""}, "name the last block with --config.model.cut"),
    ({"model.hidden": 4}, r"stage 1 of 3, head::exact\): --config.model.hidden=4"),
    ({"bottleneck.engine": "litert_int8", "bottleneck.views": 1}, r"stage 2 of 3, .*trains a block; set it to xla"),
    ({"train.stages": "head:1:0.1", "optim.penalty": 0.5}, "--config.optim.penalty=0.5 needs the stage head::exact"),
    ({"train.stages": "block1:1:0.1", "bottleneck.views": 1}, r"stage 1 of 1.*train_from=block1 freezes no block"),
])  # fmt: skip
def test_other_settings_must_fit(folder, changes, says):
    with pytest.raises(ConfigError, match=says):
        flags.validate(config(folder, **changes))


def test_settings_of_trained_blocks_are_none_of_a_stage_without(folder):
    stages = {"train.stages": "head:1:1e-3, mixed0:1:1e-4", "model.train_bn": True}
    network = {"model.backbone": "inception_v3", "model.cut": "mixed0", "model.pool_from": "cut"}
    whole = config(folder, **stages, **network, **{"data.image_size": 75})
    flags.validate(whole)
    assert [config_of(whole, number).model.train_bn for number in (1, 2)] == [False, True]


def test_a_stage_is_a_run_of_its_own(folder):
    whole = config(folder, **{"optim.penalty": 0.5, "bottleneck.views": 3})
    flags.validate(whole)
    solved, trained = config_of(whole, 1), config_of(whole, 3)
    assert (solved.optim.name, solved.optim.penalty, solved.model.train_from) == ("exact", 0.5, "head")
    assert (solved.data.augment, solved.bottleneck.views, solved.model.dropout) == ("none", 1, 0.0)
    assert (trained.optim.name, trained.optim.penalty, trained.model.train_from) == ("adam", 0.0, "block2")
    assert (trained.epochs, trained.optim.learning_rate) == (2, 1e-4)
    assert (trained.data.augment, trained.bottleneck.views, trained.model.dropout) == ("article", 3, 0.3)
    assert whole == config(folder, **{"optim.penalty": 0.5, "bottleneck.views": 3})


# runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    """The workdir of a finished run with stages; not to be changed."""
    workdir = tmp_path_factory.mktemp("stages") / "run"
    assert loop.train(config(folder), workdir) == 0
    return workdir


def latest(workdir: Path):
    return read_meta(workdir, steps(workdir)[-1])


def test_history_and_meta_say_which_stage(whole, folder):
    history = latest(whole).history
    assert [(entry["stage"], entry["epoch"], entry["step"]) for entry in history] == [
        (1, 1, 1),
        (2, 2, 4),
        (3, 3, 7),
        (3, 4, 10),
    ]
    last = latest(whole)
    assert (last.stage, last.config.model.train_from, last.config.epochs) == (3, "block2", 2)
    assert last.asked.train.stages == STAGES
    assert last.asked.optim.penalty == history[0]["candidates"]["penalty"] > 0
    assert json.loads((whole / "config.json").read_text()) == last.asked.to_dict()
    events = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["candidates", *["epoch"] * 4]


def test_the_same_command_says_that_it_is_finished_and_another_is_refused(whole, folder, capsys):
    before = outcome(whole)
    assert loop.train(config(folder), whole) == 0
    assert "this run is finished: stage 3 of 3 (epochs 3 to 4): 2 epochs; to evaluate it" in capsys.readouterr().out
    assert outcome(whole) == before
    for resume in ("auto", "force"):
        with pytest.raises(ConfigError, match=r"begun with --config.train.stages=head::exact, block3.*, not head::exa"):
            loop.train(config(folder, "head::exact, block3:9:1e-3", resume=resume), whole)
    with pytest.raises(ConfigError, match=r"--config.optim.penalty"):
        loop.train(config(folder, **{"optim.penalty": 77.0}), whole)


@pytest.mark.slow
def test_the_stages_are_the_runs_one_by_one(tmp_path, folder):
    """With nothing held out, so that the best checkpoint of a run is its latest: equal to the last bit."""
    nothing = {"data.dir": str(folder / "train"), "data.validation_fraction": 0.0}
    assert loop.train(config(folder, **nothing), tmp_path / "whole") == 0
    solved = {"model.dropout": 0.0, "data.augment": "none", "bottleneck.views": 1, "optim.name": "exact"}
    chain = [
        solved,
        {"init_from": str(tmp_path / "1"), "model.train_from": "block3", "epochs": 1, "optim.learning_rate": 1e-3},
        {"init_from": str(tmp_path / "2"), "model.train_from": "block2", "epochs": 2, "optim.learning_rate": 1e-4},
    ]
    history = latest(tmp_path / "whole").history
    for number, changes in enumerate(chain, start=1):
        assert loop.train(config(folder, "", **nothing, **changes), tmp_path / str(number)) == 0
        alone = latest(tmp_path / str(number)).history
        for ours, theirs in zip(entries_of(history, number), alone, strict=True):
            assert (ours["train/loss"], ours["train/accuracy"]) == (theirs["train/loss"], theirs["train/accuracy"])
    one, other = (jaxcat.load(tmp_path / name, step="latest") for name in ("whole", "3"))
    for a, b in zip(*(jax.tree.leaves((each.params, each.stats)) for each in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_stage_begins_with_the_numbers_of_the_one_before(folder, tmp_path):
    """With a learning rate of nothing, they stay what they were."""
    stages = "head::exact, block3:1:1e-30, block2:1:1e-30"
    assert loop.train(config(folder, stages, **{"checkpoint.keep": 3}), tmp_path / "run") == 0
    first, *others = (jaxcat.load(tmp_path / "run", step=step) for step in steps(tmp_path / "run"))
    assert len(others) == 2
    for each in others:
        for stage in first.network.stages:
            for a, b in zip(*(jax.tree.leaves(of.params[stage]) for of in (first, each)), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-28)  # a bias that was 0 has moved by 1e-30
    solved, *trained = latest(tmp_path / "run").history
    for entry in trained:
        assert entry["validation/loss"] == pytest.approx(solved["validation/loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("look", "stage", "lost"), [(5, 2, False), (6, 3, True)])
def test_interrupted_anywhere_the_run_ends_at_the_same_bits(whole, folder, tmp_path, monkeypatch, look, stage, lost):
    """Also if the frozen tree is lost, which the first stage wrote: it is made again.

    An epoch has 3 steps and 2 batches of validation, a look after each; looks are counted in this stage only.
    """

    def counted_in_one_stage(*arguments, **named):
        at.looks, at.at = 0, look if named["stage"] == stage else 0
        return start(*arguments, **named)

    at, start = small.InterruptedAt(0), loop.start
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interruption", at)
        patch.setattr(loop, "start", counted_in_one_stage)
        assert loop.train(config(folder), tmp_path / "run") == 143
    assert latest(tmp_path / "run").stage == stage
    if lost:
        shutil.rmtree(tmp_path / "run" / "frozen")
    assert loop.train(config(folder), tmp_path / "run") == 0
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.mark.slow
def test_a_signal_after_the_last_look_of_a_stage_ends_the_run(whole, folder, tmp_path, monkeypatch, capsys):
    """When the head is solved, and at the end of a trained stage; not when nothing is left to do."""

    def run(module, name: str, number: signal.Signals, *, stage: int = 0) -> int:
        """The status of a run that gets a signal when a function has done its work, perhaps only in one stage."""

        def signalled(*arguments, **named):
            result = original(*arguments, **named)
            if stage in (0, named.get("stage"), getattr(arguments[0], "stage", None)):
                signal.raise_signal(number)
            return result

        original = getattr(module, name)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, signalled)
            return loop.train(config(folder), tmp_path / "run")

    def lost(*_: object) -> None:
        raise AssertionError("nothing waits for a signal")  # instead of the end of this process

    before = {number: signal.signal(number, lost) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert run(exact, "show_candidates", signal.SIGINT) == 130
        assert capsys.readouterr().out.endswith(
            "interrupted: the same command continues with stage 2 of 3, block3:1:0.001\n"
        )
        assert latest(tmp_path / "run").stage == 1
        assert run(loop, "following", signal.SIGTERM, stage=2) == 143
        assert "interrupted: the same command continues with stage 3 of 3" in capsys.readouterr().out
        assert latest(tmp_path / "run").stage == 2
        assert run(loop, "following", signal.SIGTERM, stage=3) == 0
        assert "interrupted" not in capsys.readouterr().out
        assert signal.getsignal(signal.SIGTERM) is lost
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "moment"), [(2, "start"), (3, "run_epoch")])
def test_killed_between_two_stages_the_run_ends_at_the_same_bits(whole, folder, tmp_path, monkeypatch, stage, moment):
    """Before it begins, and after an epoch of it that no checkpoint has."""

    def killed(*arguments, **named):
        if moment == "start" and named["stage"] == stage:
            raise KeyboardInterrupt
        result = original(*arguments, **named)
        if moment == "run_epoch" and named["plan"].epochs_before == stage - 1:
            raise KeyboardInterrupt
        return result

    original = getattr(loop, moment)
    with monkeypatch.context() as patch:
        patch.setattr(loop, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config(folder), tmp_path / "run")
    assert latest(tmp_path / "run").stage == stage - 1
    assert loop.train(config(folder), tmp_path / "run") == 0
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.mark.slow
def test_the_best_of_all_stages_is_evaluated_whichever_it_is(folder, tmp_path):
    """A learning rate that spoils what was solved: the first stage stays the best, and is kept."""
    assert loop.train(config(folder, "head::exact, block3:3:1e3", seed=1), tmp_path / "run") == 0
    history = latest(tmp_path / "run").history
    assert max(history[1:], key=lambda entry: -entry["validation/loss"])["validation/loss"] > 10
    best, last = (jaxcat.load(tmp_path / "run", step=step) for step in ("best", "latest"))
    assert (best.step, best.config.model.train_from, last.config.model.train_from) == (1, "head", "block3")
    for step, entry in (("best", history[0]), ("latest", history[-1])):
        assert evaluate.main(["--workdir", str(tmp_path / "run"), "--step", step]) == 0
        figures = json.loads((tmp_path / "run/evaluation/validation.json").read_text())
        assert figures["accuracy"] == entry["validation/accuracy"]
        assert figures["loss"] == pytest.approx(entry["validation/loss"], rel=1e-4)


def test_a_run_with_stages_is_exported(whole, tmp_path):
    pytest.importorskip("onnxruntime")
    from jaxcat.export.__main__ import main as export

    assert export(["--workdir", str(whole), "--format", "onnx", "--output", str(tmp_path / "m.onnx")]) == 0


def test_the_command_of_the_report_makes_the_whole_run_again(whole, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    asked = latest(whole).asked
    words = shlex.split(" ".join(train_command(latest(whole), "again")))
    again = flags.read_config(words[4], words[7:])
    flags.validate(again)
    complete(again)
    found, wanted = flatten(again), flatten(asked)
    assert {name for name in wanted if found[name] != wanted[name]} <= {"data.grey_bits"}
    assert _head(latest(whole)) == (
        "trained by adam at learning rate 0.0001 for 2 epochs, with the blocks from block2 on, images augmented "
        "(article); stage 3 of 3, block2:2:0.0001"
    )


# the end --------------------------------------------------------------------------------------------------------------


def test_patience_ends_a_stage_and_accuracy_the_run(whole, folder):
    asked = config(folder, "head:4:1e-3, block3:4:1e-3", **{"stop.patience": 2, "stop.accuracy": 0.9})
    meta = dataclasses.replace(latest(whole), request=asked, stage=1)

    def after(*accuracies: float, stage: int = 1):
        history = [
            {"epoch": n, "step": n, "stage": stage, "validation/accuracy": each, "validation/loss": 1.0}
            for n, each in enumerate(accuracies, start=1)
        ]
        return dataclasses.replace(meta, history=tuple(history), stage=stage)

    def answers(meta) -> tuple[int, bool]:
        return next_stage(asked, meta), bool(finished(asked, meta))

    assert answers(after(0.5)) == (1, False)
    assert answers(after(0.5, 0.5, 0.5)) == (2, False)
    assert following(after(0.5, 0.5, 0.5)) == "stage 2 of 2, block3:4:0.001, follows"
    assert answers(after(0.5, 0.6, 0.7, 0.8)) == (2, False)
    assert answers(after(0.5, 0.95)) == (0, True)
    assert following(after(0.5, 0.95)) == ""
    assert answers(after(0.5, 0.5, 0.5, stage=2)) == (0, True)
    assert next_stage(asked, None) == 1
