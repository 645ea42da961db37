"""Evaluation on bottlenecks that the cache has: the figures of the images, and no image decoded."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from processes import Processes
from scipy.special import log_softmax
from small_bottlenecks import SILENT
from test_evaluate import evaluated
from test_exact_run import TINY, events

import jaxcat
from jaxcat import evaluate
from jaxcat.bottlenecks import rows
from jaxcat.bottlenecks.cached import CachedSplit
from jaxcat.data.records import Split
from jaxcat.errors import DataError
from jaxcat.inference import evaluation
from jaxcat.inference.classifier import Classifier
from jaxcat.objectives.probabilities import with_zero_logit
from jaxcat.runs.first_meta import new_meta
from jaxcat.runs.restore import Restored
from jaxcat.system.files import NoHomeError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache_of_this_file")]
FOUND = "all 12 found"  # 6 images of each class


@pytest.fixture(scope="module")
def runs(folder, cache, tmp_path_factory) -> dict[str, Path]:
    """An exact head, a head and a block trained on augmented maps, and a head trained on float16 rows."""
    root = tmp_path_factory.mktemp("runs")
    trained = {"optim.name": "adam", "model.cut": "block3", "model.pool_from": "cut", "epochs": 2}
    variants = {
        "exact": {},
        "maps": {**trained, "model.train_from": "block3", "bottleneck.dtype": "float32", "data.augment": "article"},
        "half": {**trained, "model.pool": "avg", "bottleneck.dtype": "float16"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(cache))
        for name, changes in variants.items():
            recipe = "folder" if name == "exact" else "folder:trained"
            jaxcat.fit(recipe, root / name, settings={**TINY, "data.dir": folder, **changes})
    return {name: root / name for name in variants}


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The numbers of the records whose images are decoded."""
    seen: list[int] = []
    method = Split._decoded

    def spy(self, content, index, *, shown):
        seen.append(index)
        return method(self, content, index, shown=shown)

    monkeypatch.setattr(Split, "_decoded", spy)
    return seen


def measured(workdir: Path, results: Path, *more: str) -> tuple[dict, list[dict]]:
    assert evaluate.main(["--workdir", str(workdir), "--results-dir", str(results / "evaluation"), *more]) == 0
    return evaluated(results, "validation")


def of_images(workdir: Path, files: list[Path]) -> np.ndarray:
    """Log-probabilities of files, from their pixels."""
    classifier = jaxcat.load(workdir)
    pixels = np.stack([classifier.prepare(path) for path in files])
    padded = np.concatenate([pixels, np.zeros((-len(pixels) % 8, *pixels.shape[1:]), np.uint8)])
    batch = {"image": padded, "label": np.zeros(len(padded), np.int32), "mask": np.ones(len(padded), bool)}
    logits = np.asarray(classifier.xla.evaluate_batch(batch)[0])[: len(pixels)]
    return log_softmax(with_zero_logit(logits.astype(np.float64)), axis=1)


def snapshot(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for name in ("bottlenecks", "pixels") for path in (cache / name).rglob("*")}


def found_by(workdir: Path) -> CachedSplit | None:
    """What is in the cache of the run's validation split."""
    classifier = jaxcat.load(workdir)
    split = evaluation.open_split(classifier, split="validation")
    return classifier.engine.cached(split, console=SILENT)


@pytest.mark.parametrize("name", ["exact", "maps"])
def test_rows_give_the_numbers_of_the_images_and_of_the_run(runs, folder, cache, tmp_path, decoded, capsys, name):
    before = snapshot(cache)
    figures, predictions = measured(runs[name], tmp_path)
    assert not decoded
    assert capsys.readouterr().out.count(FOUND) == 1
    assert snapshot(cache) == before
    (epoch,) = [event for event in events(runs[name]) if event.get("step") == figures["step"]]
    assert figures["accuracy"] == epoch["validation/accuracy"]
    assert figures["loss"] == pytest.approx(epoch["validation/loss"], rel=1e-5)
    expected = of_images(runs[name], [folder / row["file"] for row in predictions])
    assert np.ptp(expected) > 0.1
    log_probabilities = evaluation.evaluate(jaxcat.load(runs[name]), found_by(runs[name]))
    np.testing.assert_allclose(log_probabilities, expected, rtol=0, atol=1e-5)


def test_other_folders_and_splits_are_found_by_content(runs, folder, tmp_path, decoded, capsys, caplog):
    """Moved, renamed, one of them twice, and images of train among them: warnings come from the digests."""
    workdir = runs["exact"]
    assert evaluate.main(["--workdir", str(workdir), "--split", "train", "--results-dir", str(tmp_path)]) == 0
    assert "all 24 found" in capsys.readouterr().out
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "validation" / "disc" / "000.png").rename(moved / "validation" / "disc" / "other name.png")
    shutil.rmtree(moved / "train")
    assert measured(workdir, tmp_path, "--moved-data", str(moved)) == measured(workdir, tmp_path)
    assert capsys.readouterr().out.count(FOUND) == 2
    assert not caplog.text
    shutil.copy(folder / "train" / "disc" / "003.png", moved / "validation" / "disc" / "of train.png")
    shutil.copy(folder / "train" / "disc" / "003.png", moved / "validation" / "disc" / "again.png")
    arguments = ["--workdir", str(workdir), "--results-dir", str(tmp_path), "--data", str(moved / "validation")]
    assert evaluate.main(arguments) == 0
    assert "all 14 found" in capsys.readouterr().out
    assert "2 of 14 images" in caplog.text
    assert "the run was trained on them" in caplog.text
    assert not decoded


def test_changes_of_the_runs_own_images_are_said(runs, folder, tmp_path, decoded, caplog):
    """An image of train has come into the place of one of validation; its row is there too."""
    workdir = shutil.copytree(runs["exact"], tmp_path / "run")
    validation = folder / "validation" / "disc" / "001.png"
    content = validation.read_bytes()
    try:
        shutil.copy(folder / "train" / "disc" / "001.png", validation)
        measured(workdir, tmp_path)
    finally:
        validation.write_bytes(content)
    assert "1 of 12 images of validation have other content than when the run began" in caplog.text
    assert "1 of them now have that of an image that the run was trained on" in caplog.text
    assert not decoded


def falls_back(workdir: Path, results: Path, decoded: list[int], capsys, *more: str) -> dict:
    decoded.clear()
    figures, _ = measured(workdir, results, *more)
    assert decoded
    assert "found" not in capsys.readouterr().out
    return figures


def test_half_precision_rows_are_not_used(runs, tmp_path, decoded, capsys):
    falls_back(runs["half"], tmp_path, decoded, capsys)


def test_augmented_views_are_not_taken_for_the_images(runs, tmp_path, decoded, capsys):
    assert evaluate.main(["--workdir", str(runs["maps"]), "--split", "train", "--results-dir", str(tmp_path)]) == 0
    assert decoded
    assert "found" not in capsys.readouterr().out


def test_one_new_image_falls_back(runs, folder, tmp_path, decoded, capsys):
    moved = shutil.copytree(folder / "validation", tmp_path / "images")
    small.draw("disc", np.random.default_rng(5)).save(moved / "disc" / "001.png")
    arguments = ["--workdir", str(runs["exact"]), "--results-dir", str(tmp_path), "--data", str(moved)]
    assert evaluate.main(arguments) == 0
    assert len(set(decoded)) == 12
    assert "found" not in capsys.readouterr().out


def test_one_bad_image_among_cached_ones_is_named(runs, folder, tmp_path):
    moved = shutil.copytree(folder / "validation", tmp_path / "images")
    (moved / "disc" / "001.png").write_bytes(b"no image")
    arguments = ["--workdir", str(runs["exact"]), "--results-dir", str(tmp_path), "--data", str(moved)]
    with pytest.raises(DataError, match=r"1 of 12 images cannot be read:\n.*001\.png"):
        evaluate.main(arguments)


@pytest.fixture
def copied_cache(cache, tmp_path, monkeypatch) -> Path:
    """A copy of the cache, to do with as one likes."""
    copied = shutil.copytree(cache, tmp_path / "cache")
    monkeypatch.setenv("JAXCAT_CACHE", str(copied))
    return copied


def test_a_damaged_block_falls_back(runs, copied_cache, tmp_path, decoded, capsys, caplog):
    before, _ = measured(runs["exact"], tmp_path)
    part = found_by(runs["exact"]).parts.rows[-1]
    (path,) = [path for path in part.folder.glob("*.npy") if len(np.load(path)) == 12]
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    capsys.readouterr()
    figures = falls_back(runs["exact"], tmp_path, decoded, capsys)
    assert figures["loss"] == pytest.approx(before["loss"], rel=1e-5)
    assert caplog.text.count("is damaged: its rows are computed again") == 1


def test_damage_among_rows_of_other_images_is_left_to_those_who_read_them(runs, copied_cache, tmp_path, decoded):
    part = found_by(runs["exact"]).parts.rows[-1]
    (path,) = [path for path in part.folder.glob("*.npy") if len(np.load(path)) == 24]
    path.write_bytes(b"")
    measured(runs["exact"], tmp_path)
    assert not decoded
    assert path.with_suffix(".json").exists()


@pytest.mark.parametrize("cleared", ["one part", "all"])
def test_a_cleared_cache_falls_back_and_stays_empty(runs, copied_cache, tmp_path, decoded, capsys, cleared):
    if cleared == "all":
        shutil.rmtree(copied_cache)
    else:
        shutil.rmtree(found_by(runs["exact"]).parts.rows[0].folder)
    before = snapshot(copied_cache)
    falls_back(runs["exact"], tmp_path, decoded, capsys)
    assert snapshot(copied_cache) == before


def test_a_user_without_a_home_has_no_cache(runs, tmp_path, decoded, capsys, monkeypatch):
    def homeless() -> Path:
        raise NoHomeError("no home")

    monkeypatch.setattr(rows, "cache_dir", homeless)
    falls_back(runs["exact"], tmp_path, decoded, capsys)


def test_a_run_without_a_frozen_block_falls_back(folder, tmp_path):
    config = small.tiny_config(folder)
    config.model.train_from = "stem"
    network = small.network(config)
    meta = new_meta(config, ("a", "b"), conventions=network.conventions, provenance={})
    run = Restored(meta, network, *network.split(*network.initialize(0)))
    split = Split("validation", ("a",), np.zeros(1, np.int32), lambda index: b"")
    assert not network.prefix_stages
    assert Classifier(meta, restore=lambda: run).engine.cached(split, console=SILENT) is None


def test_two_processes_read_the_rows_of_one(runs, tmp_path):
    """Only if both find them: the second time, one of them has another cache."""
    figures, _ = measured(runs["exact"], tmp_path)
    arguments = ["--workdir", str(runs["exact"]), "--results-dir", str(tmp_path / "evaluation")]
    options = {"devices": 2, "logs": tmp_path / "logs"}
    with Processes(2, ("-m", "jaxcat.evaluate"), arguments, **options) as run:
        assert run.statuses() == [0, 0], run.output()
        assert FOUND in run.output()
    together, _ = evaluated(tmp_path, "validation")
    assert together["loss"] == pytest.approx(figures["loss"], rel=1e-5)
    code = (
        "import os, sys; from jaxcat import evaluate\n"
        "if sys.argv[-1] == '1': os.environ['JAXCAT_CACHE'] += '-other'\n"
        "sys.exit(evaluate.main(sys.argv[1:]))"
    )
    with Processes(2, ("-c", code), arguments, **options) as run:
        assert run.statuses() == [0, 0], run.output()
        assert "found" not in run.output()
    apart, _ = evaluated(tmp_path, "validation")
    assert apart["loss"] == pytest.approx(figures["loss"], rel=1e-5)
