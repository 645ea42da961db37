"""Whole runs, small: train, continue, stop, fail, restore."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small
import small_run
from small_run import TIMES, metrics

import jaxcat
from jaxcat.config import default, flatten
from jaxcat.errors import CheckpointError, ConfigError, TrainingError, WeightsError
from jaxcat.flags import read_config
from jaxcat.inference.evaluation import open_split
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import workdir as workdirs
from jaxcat.train import train
from jaxcat.training import epoch, loop
from jaxcat.training.epoch import class_weights
from jaxcat.training.loop import stop_reason
from jaxcat.training.origin import from_run
from jaxcat.training.start import CAN_BE_FORCED, _other_settings

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory, folder) -> Path:
    """A finished run of three epochs on drawn images, its backbone trained from scratch."""
    workdir = tmp_path_factory.mktemp("run")
    changes = {"model.dropout": 0.2, "data.augment": "article"}
    assert train(small_run.config(folder, **changes), workdir) == 0
    return workdir


def test_a_run_leaves_what_the_contract_says(finished):
    entries = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    keys = {
        "event",
        "epoch",
        "step",
        *TIMES,
        *(f"{s}/{q}" for s in ("train", "validation") for q in ("loss", "accuracy")),
    }
    assert all(set(entry) == keys for entry in entries)
    assert json.loads((finished / "config.json").read_text())["model"]["cut"] == "mixed0"
    assert (finished / "learning_curve.png").is_file()
    assert (finished / "frozen").is_dir()
    assert len(workdirs.steps(finished)) <= 3, "the latest, the one before it, and the best"


def test_a_finished_run_says_so_and_does_nothing(finished, folder, capsys):
    before = (finished / "metrics.jsonl").stat().st_mtime_ns
    config = small.tiny_config(folder)
    config.epochs, config.model.train_from, config.model.train_bn = 3, "mixed0", True
    config.model.dropout, config.data.augment = 0.2, "article"
    assert train(config, finished) == 0
    assert "finished" in capsys.readouterr().out
    assert (finished / "metrics.jsonl").stat().st_mtime_ns == before


def test_another_setting_is_refused_in_one_sentence_with_both_values_and_advice_that_helps(finished, folder):
    config = small_run.config(folder, **{"model.dropout": 0.2, "data.augment": "article"})
    config.optim.learning_rate = 0.5
    with pytest.raises(ConfigError) as caught:
        train(config, finished)
    assert str(caught.value) == (
        f"--workdir {finished}: the run there was begun with --config.optim.learning_rate=0.001, not 0.5: ask for this "
        "value again to continue it, or choose another --workdir for a new run, or add --config.resume=force to "
        "continue it with what is asked for now"
    )
    config.optim.name, config.data.classes = "sgd", "disc,square"
    with pytest.raises(ConfigError) as caught:
        train(config, finished)
    assert str(caught.value) == (
        f'--workdir {finished}: the run there was begun with --config.data.classes="", not disc,square, and '
        "--config.optim.learning_rate=0.001, not 0.5, and --config.optim.name=rmsprop, not sgd: ask for these values "
        "again to continue it, or choose another --workdir for a new run"
    )
    config.optim.label_smoothing = 0.1
    with pytest.raises(ConfigError) as caught:
        train(config, finished)
    assert str(caught.value).startswith(
        f"--workdir {finished}: there is a run with 4 other settings: choose another --workdir for a new run, or ask "
        'for its settings again to continue it. It was begun with --config.data.classes="", not disc,square, and '
    )


@pytest.mark.parametrize("source", ["folder", "digits"])
def test_only_a_run_of_the_recipe_that_trained_the_head_is_told_of_its_new_name(source):
    recipe = {"optim.name": ("rmsprop", "exact"), "model.pool": ("avg", "avg_std")}
    changes = recipe | ({} if source == "folder" else {"data.source": (source, "folder")})
    said = _other_settings(changes, exact=False)
    assert ("folder:trained is what they were" in said) == (source == "folder")


@pytest.mark.slow
def test_all_that_can_be_forced_as_the_advice_says_is_changed(finished, folder, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    other = {
        "data.resize": "center_crop",
        "data.augment": "none",
        "data.augment_on": "host",
        "model.dtype": "bfloat16",
        "model.train_bn": False,
        "model.remat": True,
        "optim.schedule": "cosine",
        "optim.class_weight": "balanced",
        "optim.accumulate": 1,  # each of eight devices has one row of a batch
        "optim.mix": "mixup_bottlenecks",
        "bottleneck.views": 1,
        "bottleneck.dtype": "float32",
        "bottleneck.engine": "xla",  # as before: the others need float32
    }
    other |= dict.fromkeys(CAN_BE_FORCED - other.keys(), 0.25)
    config = small_run.config(folder, **other, epochs=4)
    with pytest.raises(ConfigError, match="or add --config.resume=force"):
        train(config, tmp_path / "run")
    config.resume = "force"
    assert train(config, tmp_path / "run") == 0
    kept = flatten(jaxcat.load(tmp_path / "run", step="latest").config)
    assert {name: kept[name] for name in CAN_BE_FORCED} == other


@pytest.mark.slow
def test_what_a_run_began_with_stays_even_by_force(finished, folder, tmp_path, caplog):
    shutil.copytree(finished, tmp_path / "run")
    changes = {"model.preprocessing": "zero_one", "model.dropout": 0.1, "data.augment": "article"}
    config = small_run.config(folder, **changes, resume="force", epochs=4)
    assert train(config, tmp_path / "run") == 0
    kept = jaxcat.load(tmp_path / "run", step="latest").config
    assert (kept.model.preprocessing, kept.model.dropout) == ("weights", 0.1)
    assert "preprocessing stays 'weights'" in caplog.text


@pytest.mark.slow
def test_a_continued_run_describes_itself_by_its_new_configuration(finished, folder, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "moved")
    config = small.tiny_config(tmp_path / "moved")
    config.epochs, config.model.train_from, config.model.train_bn = 4, "mixed0", True
    config.model.dropout, config.data.augment = 0.2, "article"
    assert train(config, tmp_path / "run") == 0
    assert jaxcat.load(tmp_path / "run", step="latest").config.data.dir == str(tmp_path / "moved")


def test_a_run_whose_images_have_become_more_is_not_continued(finished, folder, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "more")
    shutil.copy(tmp_path / "more/train/disc/000.png", tmp_path / "more/train/disc/999.png")
    config = small.tiny_config(tmp_path / "more")
    config.epochs, config.model.train_from, config.model.train_bn = 4, "mixed0", True
    config.model.dropout, config.data.augment = 0.2, "article"
    with pytest.raises(ConfigError, match="24 images in batches of 8, now there are 25"):
        train(config, tmp_path / "run")


def test_a_run_whose_images_have_other_names_is_not_continued_and_its_evaluation_says_so(
    finished, folder, tmp_path, caplog
):
    """As many as before, so the steps would fit; but others, and in a hold-out perhaps images trained on."""
    workdir, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(finished, workdir)
    shutil.copytree(folder, moved)
    config = small_run.config(moved, **{"data.augment": "article", "model.dropout": 0.2})
    assert train(config, workdir) == 0  # finished, and the same images elsewhere
    (moved / "validation/disc/000.png").rename(moved / "validation/disc/999.png")
    config.epochs = 4
    with pytest.raises(ConfigError, match=r"now there are 24 .*names or labels have changed.*init_from"):
        train(config, workdir)
    classifier = jaxcat.load(workdir)
    for name, warned in ((folder, False), (moved, True)):
        classifier.config.data.dir, before = str(name), len(caplog.records)
        open_split(classifier, split="validation", data=None)
        assert any("other names or labels" in record.message for record in caplog.records[before:]) == warned


@pytest.mark.slow
def test_a_new_run_leaves_neighbours_alone(folder, tmp_path):
    (tmp_path / "frozen_head").mkdir()
    (tmp_path / "frozen.txt").write_text("mine")
    config = small.tiny_config(folder)
    config.epochs = 1
    assert train(config, tmp_path) == 0
    assert (tmp_path / "frozen_head").is_dir()
    assert (tmp_path / "frozen.txt").read_text() == "mine"


def test_resume_never_refuses_a_workdir_that_holds_a_run(finished, folder):
    config = small.tiny_config(folder)
    config.resume = "never"
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config, finished)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["host", "device"])
def test_interrupted_within_an_epoch_and_continued_equals_uninterrupted(tmp_path, folder, monkeypatch, where):
    """Stopped after any step, the same command ends at the same bits: parameters, optimizer, statistics, metrics."""
    config = small.tiny_config(folder)
    config.model.train_from, config.model.train_bn, config.model.dropout = "mixed0", True, 0.3
    config.data.augment, config.batch_size = "article", 7  # 24 images: 4 steps, the last of 3
    config.data.augment_on, config.data.erase = where, 0.5
    assert train(config, tmp_path / "whole") == 0

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interruption", small.InterruptedAt(2))
        assert train(config, tmp_path / "cut") == 143
    assert workdirs.steps(tmp_path / "cut") == [2]
    assert train(config, tmp_path / "cut") == 0
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    whole, cut = (checkpoint_meta.read_meta(tmp_path / name, 8).digests for name in ("whole", "cut"))
    assert whole == cut


def test_every_step_and_every_validation_batch_stands_in_line(tmp_path, folder, monkeypatch):
    """What a step leaves for it must outlive the next step, which takes over the memory of the state."""

    seen = []

    class Recorder(epoch.InLine):
        def add(self, result):
            seen.append(result)
            super().add(result)

    monkeypatch.setattr(epoch, "InLine", Recorder)
    config = small.tiny_config(folder)
    config.epochs, config.batch_size = 2, 7  # 24 images, 4 steps; 12 to validate, 7 and 5
    assert train(config, tmp_path / "run") == 0
    assert [int(result) for result in seen] == [1, 2, 3, 4, 7, 5, 5, 6, 7, 8, 7, 5]


@pytest.mark.slow
def test_not_a_number_stops_names_the_step_and_keeps_the_last_good(tmp_path, folder):
    config = small.tiny_config(folder)
    config.epochs, config.optim.name = 20, "sgd"
    config.optim.learning_rate, config.optim.weight_decay = 1000.0, 1.0  # each step multiplies the head by -999
    with pytest.raises(TrainingError, match=r"not finite at step \d+") as caught:
        train(config, tmp_path / "run")
    assert "--config.optim.learning_rate" in str(caught.value)
    assert workdirs.steps(tmp_path / "run")
    for step in workdirs.steps(tmp_path / "run"):
        assert np.isfinite(checkpoint_meta.read_meta(tmp_path / "run", step).history[-1]["train/loss"])


def test_a_step_that_leaves_infinite_parameters_is_not_saved(tmp_path, folder, monkeypatch, no_kept_programs):

    def step(state, frozen, batch):  # its loss is finite, what it leaves is not
        return state._replace(step=state.step + 1, trained=jax.tree.map(lambda leaf: leaf + np.inf, state.trained))

    monkeypatch.setattr(epoch, "make_train_step", lambda *_, **__: step)
    config = small.tiny_config(folder)
    config.checkpoint.every_steps = 1
    with pytest.raises(TrainingError, match=r"logits/\w+ is not finite after step 1"):
        train(config, tmp_path / "run")
    assert not workdirs.steps(tmp_path / "run")


@pytest.mark.slow
def test_more_epochs_under_a_schedule_are_spoken_of(tmp_path, folder, caplog):
    config = small.tiny_config(folder)
    config.epochs, config.optim.schedule = 1, "cosine"
    assert train(config, tmp_path / "run") == 0
    config.epochs = 2
    assert train(config, tmp_path / "run") == 0
    assert "--config.epochs=2, the run was begun with 1" in caplog.text


def test_a_workdir_held_by_another_run_is_refused(tmp_path, folder):
    from jaxcat.training.place import held

    with held(tmp_path), pytest.raises(CheckpointError, match="another run holds it"):
        train(small.tiny_config(folder), tmp_path)


def test_damage_on_disk_is_noticed(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    assert jaxcat.load(tmp_path / "copy").classes == ("disc", "square")
    arrays = [path for path in (tmp_path / "copy" / "frozen").rglob("d/*") if path.is_file()]
    largest = max(arrays, key=lambda path: path.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged on disk|cannot be restored"):
        jaxcat.load(tmp_path / "copy")


@pytest.mark.slow
def test_init_from_takes_the_backbone_and_the_head_only_for_the_same_classes(finished, folder, tmp_path):
    source = jaxcat.load(finished)
    config = small.tiny_config(folder)
    config.epochs, config.init_from = 1, str(finished)
    assert train(config, tmp_path / "same") == 0
    same = jaxcat.load(tmp_path / "same")
    assert same.meta.provenance["head"] == "the same run's"
    other_folder = small.image_folder(tmp_path / "others", classes=small.SHAPES)
    config.data.dir = str(other_folder)
    assert train(config, tmp_path / "other") == 0
    other = jaxcat.load(tmp_path / "other")
    assert other.meta.provenance["head"] == "new"
    for run in (same, other):
        for a, b in zip(jax.tree.leaves(run.params["mixed0"]), jax.tree.leaves(source.params["mixed0"]), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("views", [0, 1])
def test_a_batch_of_a_million_is_one_step_and_takes_no_memory(folder, tmp_path, views):
    config = small.tiny_config(folder)
    config.batch_size, config.bottleneck.views, config.epochs = 2**20, views, 2
    assert train(config, tmp_path / "run") == 0
    assert workdirs.steps(tmp_path / "run") == [1, 2]


@pytest.mark.slow
def test_init_from_leaves_behind_a_head_that_saw_other_features(finished, folder):
    """Maxima have the shape of averages."""
    config = small.tiny_config(folder)
    config.init_from = str(finished)
    classes = jaxcat.load(finished).classes
    assert "logits" in from_run(config, classes).params
    config.model.pool = "max"
    assert "logits" not in from_run(config, classes).params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.width": 0.125}, "has width 0.0625"),
        ({"model.cut": "mixed1"}, "ends at mixed0"),
        ({"model.preprocessing": "zero_one"}, "normalised by mean"),
    ],
)
def test_init_from_a_run_that_does_not_fit_is_an_error(finished, folder, tmp_path, changes, message):
    config = small.tiny_config(folder)
    config.init_from = str(finished)
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run")


@pytest.mark.slow
def test_bad_weights_are_refused_before_any_image_is_decoded(tmp_path):
    folder = small.image_folder(tmp_path / "images")
    (folder / "train" / "disc" / "000.png").write_bytes(b"not a image")
    (tmp_path / "half.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    config = small.tiny_config(folder)
    config.model.weights = str(tmp_path / "half.h5")
    with pytest.raises(WeightsError, match=r"half\.h5"):
        train(config, tmp_path / "run")


def test_tensorboard_gets_the_figures_of_every_epoch(finished):
    events = pytest.importorskip("tensorboardX.proto.event_pb2", reason="the tensorboard extra is not installed")
    import tensorflow as tf

    found = {}
    for path in (finished / "tensorboard").iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = events.Event.FromString(record)
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    for entry in metrics(finished):
        for name in ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy"):
            assert found[name, entry["step"]] == pytest.approx(entry[name])


@pytest.mark.slow
def test_frozen_stages_of_a_whole_run_are_what_they_began_as(tmp_path, folder):
    config = small.tiny_config(folder)
    config.model.cut = config.model.train_from = "mixed1"
    config.model.train_bn, config.epochs = True, 3
    config.optim.name, config.optim.weight_decay, config.optim.clip_norm = "adamw", 0.1, 1.0
    assert train(config, tmp_path / "run") == 0
    restored = jaxcat.load(tmp_path / "run", step="latest")
    for now, then in zip((restored.params, restored.stats), restored.network.initialize(config.seed), strict=True):
        for stage in ("stem", "mixed0", "mixed1"):
            pairs = zip(jax.tree.leaves(now[stage]), jax.tree.leaves(then[stage]), strict=True)
            same = [np.asarray(new).tobytes() == old.tobytes() for new, old in pairs]
            assert same
            assert all(same) if stage != "mixed1" else not any(same)


@pytest.mark.slow
def test_a_run_stops_at_its_target(tmp_path, folder, capsys):
    config = small.tiny_config(folder)
    config.epochs, config.stop.accuracy = 5, 0.01
    assert train(config, tmp_path / "run") == 0
    assert len(metrics(tmp_path / "run")) == 1
    said = capsys.readouterr().out
    assert "reached 0.01" in said
    assert "python -m jaxcat.evaluate --workdir" in said


def test_stops():
    config = default()
    config.epochs = 10
    history = [
        {"epoch": i + 1, "train/accuracy": t, "validation/accuracy": v, "validation/loss": 1.0}
        for i, (t, v) in enumerate([(0.5, 0.6), (0.9, 0.8), (0.95, 0.8), (0.97, 0.7)])
    ]
    assert stop_reason(config, history) == ""
    config.stop.accuracy, config.stop.on = 0.97, "train"
    assert "reached" in stop_reason(config, history)
    assert stop_reason(config, history[:3]) == ""
    config.stop.on = "validation"
    assert stop_reason(config, history) == ""
    config.stop.patience = 2
    assert "no better" in stop_reason(config, history)
    assert stop_reason(config, history[:3]) == ""
    config.stop.patience, config.epochs = 0, 4
    assert stop_reason(config, history) == "4 epochs"


def test_balanced_class_weights():
    np.testing.assert_allclose(class_weights(np.array([0, 0, 0, 1]), 2), [4 / 6, 2])


@pytest.mark.slow
def test_a_checkpoint_of_eight_devices_serves_one(finished, tmp_path):
    """Restored in a process with another device count, the probabilities are the same."""
    here = jaxcat.load(finished).predict(list(small.images(5)))
    code = (
        "import sys, numpy as np, jaxcat, small\n"
        "np.save(sys.argv[2], jaxcat.load(sys.argv[1]).predict(list(small.images(5))))\n"
        "assert 'tensorflow' not in sys.modules, 'predicting needs no TensorFlow'"
    )
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    out = tmp_path / "out.npy"
    subprocess.run(
        [sys.executable, "-c", code, str(finished), str(out)],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    np.testing.assert_allclose(np.load(out), here, atol=1e-5)


def test_shipped_configs_validate_and_variants_are_named():
    from jaxcat.flags import validate

    for path in sorted((REPOSITORY / "configs").glob("*.py")):
        variants = ["", *_variants(path)]
        for variant in variants:
            config = read_config(
                f"{path}:{variant}" if variant else str(path), ["--config.data.dir=x", "--config.data.name=y"]
            )
            validate(config)
        with pytest.raises(ConfigError, match="nonesuch"):
            read_config(f"{path}:nonesuch", [])


def _variants(path: Path) -> list[str]:
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.VARIANTS)
