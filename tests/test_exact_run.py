"""Runs whose head is solved, from the request to the checkpoint and its uses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image
from processes import Processes
from small_run import TIMES

import jaxcat
from jaxcat import flags
from jaxcat.errors import ConfigError
from jaxcat.evaluate import main as evaluate
from jaxcat.runs.meta import read_meta
from jaxcat.training import exact, loop

TINY = {
    **{"model.backbone": "vgg19", "model.weights": "none", "model.width": 1 / 16, "data.image_size": 32},
    "data.cache_gb": 1.0,
}


def settings(folder: Path, **changes) -> dict:
    return {**TINY, "data.dir": folder, **{name.replace("__", "."): value for name, value in changes.items()}}


def fit(folder: Path, workdir: Path, **changes) -> jaxcat.Run:
    return jaxcat.fit("folder", workdir, settings=settings(folder, **changes))


def events(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def head_of(workdir: Path) -> np.ndarray:
    logits = jaxcat.load(workdir).params["logits"]
    return np.concatenate([np.asarray(logits["kernel"]), np.asarray(logits["bias"])[None]])


def test_a_solved_run_is_shown_as_solved(solved, folder):
    candidates, _ = events(solved)
    blocks = " … ".join(dict.fromkeys(candidates["chosen"]))
    run = fit(folder, solved)  # a finished run is not solved again
    assert repr(run) == (
        f"<jaxcat run in {solved}: the head is solved, on {blocks} with penalty {candidates['penalty']:.3g}>"
    )
    assert repr(run.classifier) == f"<jaxcat classifier: 2 classes (disc, square), {blocks} of vgg19, step 1>"


def test_a_run_has_one_epoch_and_an_event_with_what_was_compared(solved):
    candidates, epoch = events(solved)
    assert candidates["event"] == "candidates"
    ranges = {tuple(row["blocks"]): row for row in candidates["ranges"]}
    assert set(ranges) == {
        ("block2", "block3", "block4", "block5"),
        ("block2", "block3", "block4"),
        ("block3", "block4"),
        ("block5",),
    }
    first, last = candidates["chosen"]
    (chosen,) = [row for blocks, row in ranges.items() if (blocks[0], blocks[-1]) == (first, last)]
    assert chosen["squared_error"] == min(row["squared_error"] for row in ranges.values())
    assert (epoch["event"], epoch["epoch"], epoch["step"]) == ("epoch", 1, 1)
    for split, count in (("leave_one_out", 24), ("validation", 12)):
        low, high = epoch[f"{split}/interval"]
        assert low <= epoch[f"{split}/accuracy"] <= high
        assert epoch[f"{split}/count"] == count
    assert epoch["train/loss"] <= epoch["leave_one_out/loss"]
    assert not (solved / "learning_curve.png").exists(), "there is no curve"


def test_the_stored_config_has_what_was_chosen_and_no_more_blocks_are_kept(solved):
    candidates, _ = events(solved)
    meta = read_meta(solved, 1)
    first, last = candidates["chosen"]
    assert meta.config.model.cut == last
    assert meta.config.model.pool_from == ("cut" if first == last else first)
    assert meta.config.optim.penalty == candidates["penalty"] > 0
    assert json.loads((solved / "config.json").read_text()) == meta.config.to_dict()
    classifier = jaxcat.load(solved)
    assert set(classifier.params) == {*classifier.network.blocks, "pool", "logits"}
    assert classifier.network.blocks[-1] == last


def test_evaluate_measures_what_the_run_measured(solved, folder):
    _, epoch = events(solved)
    for split in ("train", "validation"):
        assert evaluate(["--workdir", str(solved), "--split", split]) == 0
        figures = json.loads((solved / "evaluation" / f"{split}.json").read_text())
        assert figures["accuracy"] == epoch[f"{split}/accuracy"]
        assert figures["loss"] == pytest.approx(epoch[f"{split}/loss"], rel=1e-4)
    files = sorted((folder / "validation").rglob("*.png"))
    answers = jaxcat.load(solved).predict(files).argmax(axis=1)
    labels = [sorted(("disc", "square")).index(path.parent.name) for path in files]
    assert np.mean(answers == labels) == epoch["validation/accuracy"]


def test_the_same_command_finds_the_run_finished_with_the_choice_open_or_named(solved, folder, capsys):
    before = events(solved)
    assert len(fit(folder, solved).history) == 1
    chosen = read_meta(solved, 1).config
    named = {"model__cut": chosen.model.cut, "model__pool_from": chosen.model.pool_from}
    fit(folder, solved, **named, optim__penalty=chosen.optim.penalty)
    assert capsys.readouterr().out.count("this run is finished: the head is solved, on block") == 2
    assert events(solved) == before
    with pytest.raises(ConfigError, match="--config.optim.penalty"):
        fit(folder, solved, optim__penalty=chosen.optim.penalty * 2)
    with pytest.raises(ConfigError, match="--config.model.cut"):
        fit(folder, solved, model__cut="block2", model__pool_from="cut")
    for changes in ({"optim__name": "adam", "model__cut": "block3"}, {"optim__class_weight": "balanced"}):
        with pytest.raises(ConfigError, match="choose another --workdir for a new run$"):
            fit(folder, solved, **changes, resume="force")


@pytest.mark.slow
def test_the_chosen_range_and_penalty_asked_for_by_name_give_the_same_head(solved, folder, tmp_path):
    chosen = read_meta(solved, 1).config
    named = {"model__cut": chosen.model.cut, "model__pool_from": chosen.model.pool_from}
    fit(folder, tmp_path / "named", **named, optim__penalty=chosen.optim.penalty)
    np.testing.assert_allclose(head_of(tmp_path / "named"), head_of(solved), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_a_run_interrupted_while_it_computes_bottlenecks_goes_on_to_the_same_head(
    solved, folder, tmp_path, monkeypatch, empty_cache
):
    at = small.InterruptedAt(1)
    monkeypatch.setattr(loop, "Interruption", at)
    with pytest.raises(KeyboardInterrupt):
        fit(folder, tmp_path / "run")
    assert events(tmp_path / "run") == []
    at.at = 0
    fit(folder, tmp_path / "run")
    assert without_times(events(tmp_path / "run")) == without_times(events(solved))
    np.testing.assert_array_equal(head_of(tmp_path / "run"), head_of(solved))


def without_times(found: list[dict]) -> list[dict]:
    return [{name: value for name, value in event.items() if name not in TIMES} for event in found]


def test_a_signal_while_the_head_is_solved_ends_the_run_soon(folder, tmp_path, monkeypatch, capsys):
    config = flags.overridden(jaxcat.configs.execute("folder"), [f"--config.data.dir={folder}"])
    config.update_from_flattened_dict(TINY)
    assert loop.train(config, tmp_path / "first") == 0  # the bottlenecks are there from here on
    monkeypatch.setattr(loop, "Interruption", small.InterruptedAt(3))
    assert loop.train(config, tmp_path / "run") == 143
    assert "interrupted before the head was solved: bottlenecks are kept" in capsys.readouterr().out
    assert not (tmp_path / "run" / "checkpoints" / "1").exists()


def test_a_run_killed_after_its_checkpoint_gets_its_files_from_it(solved, folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(solved, workdir)
    (workdir / "metrics.jsonl").write_text("")
    (workdir / "config.json").unlink()
    fit(folder, workdir)
    said = capsys.readouterr().out
    assert "finished" in said
    assert "measured on validation: accuracy" in said
    assert events(workdir) == events(solved)
    assert (workdir / "config.json").read_text() == (solved / "config.json").read_text()
    assert not (workdir / "learning_curve.png").exists()


def test_nothing_held_out(folder, tmp_path, capsys):
    shutil.copytree(folder / "train", tmp_path / "images")
    run = fit(tmp_path / "images", tmp_path / "run", data__validation_fraction=0.0)
    assert run.history[0]["validation/accuracy"] is None
    assert "measured on validation: nothing is held out" in capsys.readouterr().out
    assert run.classifier.step == 1


@pytest.mark.slow
def test_twins_by_pixels_and_groups_are_left_out_together(folder, tmp_path, monkeypatch):
    """Every image of train twice, as PNG and as BMP: leaving out one of them alone would leak its label."""
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    for path in sorted((images / "train").rglob("*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".bmp"))
    asked = []
    solver = exact.solve_head

    def spy(*arguments, **options):
        asked.append(options["groups"])
        return solver(*arguments, **options)

    monkeypatch.setattr(exact, "solve_head", spy)
    run = fit(images, tmp_path / "run")
    assert np.bincount(asked[0]).tolist() == [2] * 24
    low, high = run.history[0]["leave_one_out/interval"]
    assert high - low > 0.2, "48 records are 24 images"


@pytest.mark.slow
def test_a_trained_run_begins_with_an_exact_head(solved, folder, tmp_path):
    chosen = read_meta(solved, 1).config
    changes = {
        **{"model.cut": chosen.model.cut, "model.pool_from": chosen.model.pool_from, "model.pool": "avg_std"},
        **{"init_from": solved, "optim.learning_rate": 1e-9, "epochs": 1, "bottleneck.dtype": "float32"},
    }
    run = jaxcat.fit("folder:trained", tmp_path / "run", settings=settings(folder) | changes)
    assert run.classifier.meta.provenance["head"] == "the same run's"
    assert run.history[0]["validation/loss"] == pytest.approx(events(solved)[1]["validation/loss"], rel=1e-3)


@pytest.mark.slow
def test_balanced_classes_change_the_head_and_unused_settings_are_said(folder, tmp_path, capsys):
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    for path in sorted((images / "train" / "disc").iterdir())[:8]:
        path.unlink()
    plain = fit(images, tmp_path / "plain", epochs=3, batch_size=5)
    assert "not used by an exact head: --config.epochs=3, --config.batch_size=5\n" in capsys.readouterr().out
    fit(images, tmp_path / "balanced", optim__class_weight="balanced")
    assert len(plain.history) == 1
    assert not np.allclose(head_of(tmp_path / "plain"), head_of(tmp_path / "balanced"), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["avg", "max", "flatten"])
def test_every_pooling_and_grid(folder, tmp_path, pool):
    grid = 1 if pool == "flatten" else 2
    run = fit(folder, tmp_path / "run", model__pool=pool, model__pool_grid=grid, model__cut="block3")
    assert run.history[0]["validation/accuracy"] is not None
    assert evaluate(["--workdir", str(tmp_path / "run")]) == 0
    figures = json.loads((tmp_path / "run" / "evaluation" / "validation.json").read_text())
    assert figures["accuracy"] == run.history[0]["validation/accuracy"]


@pytest.mark.slow
def test_more_than_two_classes_have_an_output_each(tmp_path):
    images = small.image_folder(tmp_path / "images", classes=small.SHAPES, train=8, validation=4)
    run = fit(images, tmp_path / "run")
    assert run.classifier.network.outputs == 3
    assert run.classifier.predict([np.zeros((32, 32, 3), np.uint8)]).sum() == pytest.approx(1)


@pytest.mark.slow
def test_two_and_four_processes_solve_the_head_of_one(tmp_path, monkeypatch):
    """Numbers that nothing divides, and more than two classes."""
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    images = small.image_folder(tmp_path / "images", classes=small.SHAPES, train=7, validation=3)
    words = ["--config", "folder", f"--config.data.dir={images}"]
    words += [f"--config.{name}={value}" for name, value in TINY.items()]
    for count in (1, 2, 4):
        workdir = tmp_path / str(count)
        arguments = [*words, "--workdir", str(workdir)]
        with Processes(count, ("-m", "jaxcat.train"), arguments, logs=tmp_path / f"{count}.logs") as run:
            assert run.statuses() == [0] * count, run.output()
        assert read_meta(workdir, 1).config.model == read_meta(tmp_path / "1", 1).config.model
        np.testing.assert_allclose(head_of(workdir), head_of(tmp_path / "1"), rtol=1e-6, atol=1e-6)


def test_a_trained_recipe_says_whether_its_curve_had_turned():
    from jaxcat.training.reporting import course_of

    def history(*losses: float) -> list[dict]:
        return [{"epoch": i + 1, "validation/loss": loss} for i, loss in enumerate(losses)]

    assert "more epochs may help" in course_of(history(3, 2, 1), whole=True)
    assert course_of(history(3, 2, 1), whole=False).endswith("(lowest in epoch 3)")
    assert "had turned: it was lowest (1.0000) in epoch 2 of 4" in course_of(history(3, 1, 2, 2), whole=True)
    assert "hardly changed" in course_of(history(1, 1, 1), whole=True)
    assert course_of(history(2, 1), whole=True) == "", "two epochs do not tell"


def test_the_request_itself_stays_as_it_is(folder, tmp_path):
    config = flags.overridden(jaxcat.configs.execute("folder"), [f"--config.data.dir={folder}"])
    with config.unlocked():
        config.update_from_flattened_dict(TINY)
    before = config.to_dict()
    assert loop.train(config, tmp_path / "run") == 0
    assert config.to_dict() == before
