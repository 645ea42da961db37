"""Studies of small folders of images, from the request to the files."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image

import jaxcat
from jaxcat import configs, flags
from jaxcat.config import flatten
from jaxcat.data.sources import open_data
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.escaping import for_cell, from_cell
from jaxcat.study import __main__ as command_line
from jaxcat.study import advice, command, results
from jaxcat.system import interruption

TINY = {"model.backbone": "vgg19", "model.weights": "none", "model.width": 1 / 16, "data.image_size": 32}
pytestmark = pytest.mark.usefixtures("small_batches")
EVIL = "=1+1 it's;$(x)"  # a class and folder name that a spreadsheet and a shell would run


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """Discs and squares: 3 discs among the squares, brightened copies of train images in validation and test."""
    root = small.image_folder(tmp_path_factory.mktemp(EVIL), train=60, validation=20, classes=("disc", "square"))
    for number in range(3):
        generator = np.random.default_rng(100 + number)
        small.draw("disc", generator).save(root / "train" / "square" / f"wrong{number}.png")
    for split, number in (("validation", "007"), ("test", "011")):
        copy = Image.open(root / "train" / "disc" / f"{number}.png").point(lambda value: min(255, int(value * 1.05)))
        (root / split / "disc").mkdir(parents=True, exist_ok=True)
        copy.save(root / split / "disc" / "copy.png")
    return root


@pytest.fixture(scope="module")
def done(planted, tmp_path_factory) -> jaxcat.study.Study:
    workdir = tmp_path_factory.mktemp("study") / EVIL
    return jaxcat.study.study("folder", workdir, settings=TINY | {"data.dir": planted})


def table(study, name: str) -> list[dict[str, str]]:
    with open(study.workdir / name, newline="", encoding="utf-8") as file:
        return [{key: from_cell(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_content(done):
    content = done.content
    assert content == json.loads((done.workdir / "study.json").read_text())
    assert content["images"] == {"train": 123, "validation": 41, "test": 1}
    assert len(content["ranges"]) == 10 * 2  # four blocks
    errors = [row["squared_error"] for row in content["ranges"]]
    assert errors == sorted(errors)
    assert content["winner"] == content["ranges"][0]
    assert content["learned"]
    found = done.accuracy
    assert found["low"] < found["accuracy"] < found["high"]
    assert content["validation"]["count"] == 41
    front = content["front"]
    assert [row["milliseconds"] for row in front] == sorted(row["milliseconds"] for row in front)
    assert [row["accuracy"] for row in front] == sorted(row["accuracy"] for row in front)
    assert content["learning_curve"]["predicted"][1]["size"] == 2 * 123
    for name in ("ranges.svg", "ranges.png", "curve.svg", "curve.png"):
        assert (done.workdir / name).stat().st_size > 5000
    assert repr(done).startswith("<jaxcat study in ")


@pytest.mark.slow
def test_planted_wrong_labels_and_copy_are_found(done):
    labels = table(done, "labels.csv")
    assert len(labels) == 123
    first = {row["path"] for row in labels[:12]}
    assert sum(f"train/square/wrong{number}.png" in first for number in range(3)) >= 2
    assert {row["suggested"] for row in labels if "wrong" in row["path"]} == {"disc"}
    pairs = table(done, "duplicates.csv")
    assert {(pair["path"], pair["path_2"]) for pair in pairs if pair["split"] != pair["split_2"]} >= {
        ("train/disc/007.png", "validation/disc/copy.png"),
        ("train/disc/011.png", "test/disc/copy.png"),
    }


@pytest.mark.slow
def test_the_recommended_config_trains_the_winner(done, planted, tmp_path):
    words = shlex.split(done.command)
    assert words[:4] == ["python", "-m", "jaxcat.train", "--config"]
    assert words[4] == str(done.config)
    config = configs.execute(words[4])
    flags.validate(config)
    assert config.data.dir == str(planted)
    winner = done.content["winner"]
    assert config.model.cut == winner["last"]
    run = jaxcat.fit(config, tmp_path / "run")
    assert run.history[-1]["leave_one_out/accuracy"] == pytest.approx(
        done.accuracy["accuracy"] + done.accuracy["optimism_of_choice"]
    )
    assert run.history[-1]["validation/accuracy"] == pytest.approx(done.content["validation"]["accuracy"])


@pytest.mark.slow
def test_the_table_of_labels_can_be_read_as_data(done, planted):
    config = configs.execute("folder")
    config.data.source, config.data.table = "table", str(done.workdir / "labels.csv")
    config.data.dir, config.data.validation_fraction = str(planted), 0.0
    data = open_data(config)
    assert len(data.splits["train"]) == 123
    assert set(data.classes) == {"disc", "square"}
    assert data.splits["train"].fetch(0).shape[2] == 3


@pytest.mark.slow
def test_a_table_with_groups_and_unreadable_images(planted, tmp_path):
    rows, place = [["path", "label", "group"]], tmp_path / "images"
    place.mkdir()
    for label in ("disc", "square"):
        for number in range(30):
            name = f"={label}{number}.png"  # a spreadsheet would run it
            shutil.copy(planted / "train" / label / f"{number:03}.png", place / name)
            rows.append([for_cell(name), label, f"{label} {number // 2}"])
    (place / "=disc4.png").write_bytes(b"no image")
    with open(place / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    settings = {"data.source": "table", "data.table": place / "table.csv", "data.skip_bad": True}
    settings |= {"data.group_column": "group", "data.validation_fraction": 0.2, "data.cache_gb": 1.0}
    found = jaxcat.study.study("folder", tmp_path / "study", settings=TINY | settings)
    images = found.content["images"]
    assert images["train"] + images["validation"] == 59
    assert found.content["groups"] == pytest.approx(images["train"] / 2, abs=1)
    paths = {row["path"] for row in table(found, "labels.csv")}
    assert len(paths) == images["train"]
    assert "=disc4.png" not in paths
    assert all(path.startswith("=") for path in paths)


@pytest.mark.slow
def test_a_second_call_shows_the_finished_study(done, planted, capsys, monkeypatch):
    monkeypatch.setattr(command, "_make", None)
    again = jaxcat.study.study("folder", done.workdir, settings=TINY | {"data.dir": planted})
    assert again.content == done.content
    assert "this study is finished" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"--config\.seed=0.*another --workdir"):
        jaxcat.study.study("folder", done.workdir, settings=TINY | {"data.dir": planted, "seed": 1})
    with pytest.raises(ConfigError, match="--sizes none"):
        jaxcat.study.study("folder", done.workdir, settings=TINY | {"data.dir": planted}, sizes=[32, 48])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "folder:trained"], "--config.optim.name=rmsprop"),
        (["--config", "folder", "--sizes", "32,x"], "--sizes 32,x"),
        (["--config", "folder", "--sizes", "150,150"], "named twice"),
        (["--config", "folder", "--sizes", "8"], "--sizes 8: must be a whole number from"),
        (["--config", "folder", "--config.model.pool_grid=2"], "pool_grid=2"),
        (["--config", "folder", "--config.data.augment=article"], "augment"),
        (["--config", "folder", "--config.data.table=x.csv"], "needs --config.data.source=table"),
    ],
)
def test_refused_before_long_work(words, message, tmp_path):
    words = [words[0], words[1], f"--config.data.dir={tmp_path}", *words[2:]]
    with pytest.raises(ConfigError, match=message):
        command_line.main([*words, "--workdir", str(tmp_path / "study")])


@pytest.mark.parametrize("size", ["150", 150.5, None, 10**9])
def test_sizes_from_python(size, tmp_path):
    with pytest.raises(ConfigError, match=f"--sizes {size}: must be a whole number"):
        jaxcat.study.study("folder", tmp_path, settings=TINY | {"data.dir": tmp_path}, sizes=[size])


def test_a_directory_with_a_run_is_refused(planted, tmp_path):
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds a run"):
        jaxcat.study.study("folder", tmp_path, settings=TINY | {"data.dir": planted})


@pytest.mark.parametrize(
    "content", [[], {}, {"summary": [], "request": [1]}, {"summary": [], "request": {"config": 5}}, {"summary": []}]
)
def test_a_file_that_is_no_study_is_named(content, tmp_path):
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"study\.json: is no study of this version: remove it"):
        jaxcat.study.study("folder", tmp_path, settings=TINY | {"data.dir": tmp_path})


def test_training_the_winner_without_its_config_file(tmp_path):
    words = ["--config", "folder", f"--config.data.dir={tmp_path}"]
    config = flags.read_config(words[1], words[2:])
    study = {"summary": [], "request": command.request(config, [])}
    (tmp_path / "study.json").write_text(json.dumps(study))
    with pytest.raises(CheckpointError, match=r"recommended\.py: not there.*: remove .*study\.json"):
        command.execute(config, tmp_path, train=True)


@pytest.mark.slow
def test_an_interrupted_study_goes_on(planted, done, tmp_path, monkeypatch):
    stop = small.InterruptedAt(3)  # after the features, which the cache has, within the ranking
    with monkeypatch.context() as patched:
        patched.setattr(interruption, "Interruption", stop)
        with pytest.raises(KeyboardInterrupt):
            jaxcat.study.study("folder", tmp_path, settings=TINY | {"data.dir": planted})
    assert not (tmp_path / "study.json").exists()
    again = jaxcat.study.study("folder", tmp_path, settings=TINY | {"data.dir": planted})
    assert again.content["winner"]["accuracy"] == done.content["winner"]["accuracy"]


@pytest.mark.slow
def test_two_sizes_share_a_table_and_train_follows(planted, tmp_path, capsys, monkeypatch):
    """At the second call: when all of the study was computed, a signal came."""

    def signalled(*arguments, **named):
        result = run(*arguments, **named)
        assert callable(signal.getsignal(signal.SIGTERM))  # else it would end this process
        signal.raise_signal(signal.SIGTERM)
        return result

    run = results.run
    words = [f"--config.{name}={value}" for name, value in TINY.items()]
    words += [f"--config.data.dir={planted}", "--sizes", "32,48", "--train"]
    words = ["--config", "folder", "--workdir", str(tmp_path / "study"), *words]
    with monkeypatch.context() as patch:
        patch.setattr(results, "run", signalled)
        assert command_line.main(words) == 143
    assert "to continue: python -m jaxcat.study --config folder" in capsys.readouterr().out
    assert not (tmp_path / "study" / "run").exists()
    assert command_line.main(words) == 0
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    assert {row["size"] for row in content["ranges"]} == {32, 48}
    assert len(content["ranges"]) == 40
    out = capsys.readouterr().out
    assert "done: the head is solved" in out
    config = jaxcat.load(tmp_path / "study" / "run").config
    assert config.data.image_size == content["winner"]["size"]


@pytest.mark.slow
def test_identical_images_say_that_nothing_is_learned(tmp_path, capsys):
    image = small.draw("disc", np.random.default_rng(0))
    for name in ("one", "other"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            shade = image.point(lambda value, by=number: (value + by) % 256)  # the same images in both classes
            shade.save(tmp_path / "images" / name / f"{number}.png")
    study = jaxcat.study.study("folder", tmp_path / "study", settings=TINY | {"data.dir": tmp_path / "images"})
    assert not study.content["learned"]
    assert study.accuracy["low"] <= 0.5
    assert study.content["labels"]["look_wrong"] == 0
    assert "do not tell the classes apart" in capsys.readouterr().out


@pytest.mark.slow
def test_many_records_are_ranked_on_some(planted, done, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxcat.study.ranking.FULL", 80)
    monkeypatch.setattr("jaxcat.study.ranking.LEAST", 60)
    study = jaxcat.study.study("folder", tmp_path, settings=TINY | {"data.dir": planted})
    content = study.content
    assert content["ranked_on"] <= 61
    in_full = [row for row in content["ranges"] if row["solved"]]
    assert len(in_full) == 10
    assert all(row["records"] == 123 for row in in_full)
    assert content["winner"] == in_full[0]
    known = {(row["first"], row["last"], row["pool"]): row for row in done.content["ranges"]}
    for row in in_full:
        assert row["accuracy"] == pytest.approx(known[row["first"], row["last"], row["pool"]]["accuracy"], abs=0.03)
    assert content["learning_curve"]["measured"][-1]["records"] == 123
    assert "the best 10 were then solved on all" in capsys.readouterr().out


def test_config_file_keeps_any_text(tmp_path):
    config = configs.execute("folder")
    config.data.dir = f"{tmp_path}/{EVIL}\n\"'\\é"
    (tmp_path / "x.py").write_text(advice.config_file(config, 'why """ not'), encoding="utf-8")
    assert flatten(configs.execute(str(tmp_path / "x.py"))) == flatten(config)


def test_it_is_a_command(capsys):
    from jaxcat.__main__ import main

    with pytest.raises(SystemExit):
        main(["study", "--help"])
    assert "how\nsure the accuracy is" in capsys.readouterr().out
