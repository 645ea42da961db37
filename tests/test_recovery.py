"""Damage, loss and a disk that is full: named, survived where that is possible, never answered by starting over."""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from test_train import metrics

import jaxcat
from jaxcat import checkpoint_meta, checkpoints, data, evaluate, recovery
from jaxcat.errors import CheckpointError
from jaxcat.train import train

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small.picture_folder(tmp_path_factory.mktemp("pictures"))


def config(folder: Path, **changes):
    result = small.tiny_config(folder)
    result.model.train_from, result.model.train_bn, result.epochs = "mixed0", True, 3
    result.update_from_flattened_dict(changes)
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory, folder) -> Path:
    """A run of three epochs of three steps."""
    workdir = tmp_path_factory.mktemp("run")
    assert train(config(folder), workdir) == 0
    return workdir


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def outcome(workdir: Path) -> tuple:
    return metrics(workdir), checkpoint_meta.read_meta(workdir, checkpoint_meta.steps(workdir)[-1])["digests"]


def flip(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def test_a_flipped_byte_in_any_file_is_found_or_changes_nothing(finished, copy):
    """Every file of the latest checkpoint, at five places: either `verify` refuses, or all is as it was written."""
    last = checkpoint_meta.steps(copy)[-1]
    good, folder = checkpoint_meta.read_meta(copy, last), copy / "checkpoints" / str(last)
    found, harmless = [], 0
    for path in files(folder):
        before = path.read_bytes()
        for place in np.linspace(0, 1, 5):
            flip(path, place)
            try:
                assert recovery.verify(copy, last) == good, path
                harmless += 1
            except CheckpointError as error:
                found.append(str(error))
            path.write_bytes(before)
    assert all(str(folder) in error and "\n" not in error for error in found)
    assert len(found) > 20, f"{len(found)} found, {harmless} harmless"


@pytest.mark.parametrize("damage", ["bytes", "meta", "file gone", "folder gone", "meta gone", "empty file"])
def test_a_damaged_latest_checkpoint_is_set_aside_and_the_run_ends_at_the_same_bits(
    finished, copy, folder, damage, caplog
):
    last = checkpoint_meta.steps(copy)[-1]
    there = copy / "checkpoints" / str(last)
    largest = max(files(there / "model"), key=lambda path: path.stat().st_size)
    if damage == "bytes":
        for place in (0.3, 0.5, 0.7):
            flip(largest, place)
    elif damage == "meta":
        text = (there / "meta" / "metadata").read_text()
        (there / "meta" / "metadata").write_text(text.replace('"epochs": 3', '"epochs": 4'))
    elif damage == "file gone":
        largest.unlink()
    elif damage == "folder gone":
        shutil.rmtree(there / "training")
    elif damage == "meta gone":
        shutil.rmtree(there / "meta")
    else:
        largest.write_bytes(b"")
    assert train(config(folder), copy) == 0
    assert outcome(copy) == outcome(finished)
    assert (copy / "damaged" / str(last)).is_dir()
    (message,) = [record.getMessage() for record in caplog.records if record.name == "jaxcat.recovery"]
    assert str(there) in message
    assert f"continues from step {checkpoint_meta.steps(finished)[-2]}" in message


def test_nothing_good_left_is_an_error_and_never_a_fresh_start(copy, folder):
    for step in checkpoint_meta.steps(copy):
        (copy / "checkpoints" / str(step) / "meta" / "metadata").write_text("{}")
    before = (copy / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="none of its checkpoints is good") as caught:
        train(config(folder), copy)
    assert all(str(step) in str(caught.value) for step in checkpoint_meta.steps(copy))
    assert (copy / "metrics.jsonl").read_bytes() == before


def test_checkpoints_that_are_gone_are_spoken_of(finished, copy, folder, caplog):
    shutil.rmtree(copy / "checkpoints")
    assert train(config(folder), copy) == 0
    assert any("3 epochs and no checkpoint" in record.getMessage() for record in caplog.records)
    assert outcome(copy) == outcome(finished)


def test_a_continued_run_keeps_its_best(tmp_path, folder):
    """The first save after a start must know the epochs before it, or it takes the best checkpoint for an old one."""
    settings = {"optim.learning_rate": 0.3, "epochs": 5}
    assert train(config(folder, **settings), tmp_path / "whole") == 0
    for epochs in (2, 3, 4, 5):
        assert train(config(folder, **{**settings, "epochs": epochs}), tmp_path / "parts") == 0
        history = checkpoint_meta.read_meta(tmp_path / "parts", checkpoint_meta.steps(tmp_path / "parts")[-1])[
            "history"
        ]
        assert checkpoint_meta.best_epoch(history)["step"] in checkpoint_meta.steps(tmp_path / "parts")
    assert checkpoint_meta.steps(tmp_path / "parts") == checkpoint_meta.steps(tmp_path / "whole")


def test_a_missing_best_is_named(copy, caplog):
    steps = checkpoint_meta.steps(copy)
    meta = checkpoint_meta.read_meta(copy, steps[-1])
    best = checkpoint_meta.best_epoch(meta["history"])["step"]
    shutil.rmtree(copy / "checkpoints" / str(best))
    if best == steps[-1]:
        assert checkpoint_meta.choose(copy, "best") == steps[-2]
    else:
        assert checkpoint_meta.choose(copy, "best") == steps[-1]
        assert any(f"step {best}, is missing" in record.getMessage() for record in caplog.records)


def test_a_damaged_frozen_tree_is_made_again(copy, folder, caplog):
    classifier = jaxcat.load(copy)
    for path in files(copy / "frozen"):
        for place in (0.2, 0.5, 0.8):
            flip(path, place)
    with pytest.raises(CheckpointError, match=r"frozen.*(damaged|cannot be restored)"):
        jaxcat.load(copy)
    assert train(config(folder, epochs=4), copy) == 0
    assert any("the same to the bit" in record.getMessage() for record in caplog.records)
    again = jaxcat.load(copy)
    for a, b in zip(jax.tree.leaves(again.frozen), jax.tree.leaves(classifier.frozen), strict=True):
        assert np.array_equal(a, b)


def test_a_frozen_tree_of_a_start_without_checkpoint_is_replaced(tmp_path, folder):
    """Killed before its first checkpoint, then started with another seed: the frozen tree must be the new one's."""
    assert train(config(folder, epochs=1), tmp_path / "run") == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train(config(folder, epochs=1, seed=7), tmp_path / "run") == 0
    assert jaxcat.load(tmp_path / "run").config.seed == 7


def test_a_checkpoint_stays_until_its_successor_is_written(copy, folder, monkeypatch):
    """A run interrupted before the validation of an epoch saves that step twice; the second write may fail."""
    last = checkpoint_meta.steps(copy)[-1]

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Failing(checkpoints.Checkpoints):
        def save(self, state, meta):
            self._manager.save = full
            super().save(state._replace(step=np.int32(last)), meta)

    with monkeypatch.context() as patch:
        patch.setattr("jaxcat.train.Checkpoints", Failing)
        with pytest.raises(CheckpointError, match="No space left"):
            train(config(folder, epochs=4), copy)
    assert last not in checkpoint_meta.steps(copy)
    assert train(config(folder), copy) == 0
    assert checkpoint_meta.steps(copy)[-1] == last
    assert recovery.verify(copy, last)["step"] == last


def test_planted_links_lead_nowhere(copy, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (copy / "evaluation").mkdir(exist_ok=True)
    for name in (".metrics.jsonl", ".config.json", ".learning_curve.png", "evaluation/.validation.json"):
        (copy / name).unlink(missing_ok=True)
        (copy / name).symlink_to(outside)
    (copy / "evaluation" / ".validation.predictions.csv").symlink_to(outside)
    assert evaluate.main(["--workdir", str(copy)]) == 0
    assert train(config(folder, epochs=4), copy) == 0
    assert outside.read_text() == "untouched"
    shutil.rmtree(copy / "evaluation")
    (tmp_path / "elsewhere").mkdir()
    (copy / "evaluation").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link"):
        evaluate.main(["--workdir", str(copy)])
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["checkpoints", "replaced"])
def test_a_planted_link_in_place_of_a_folder_is_refused_and_nothing_there_is_touched(copy, folder, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "9").mkdir(parents=True)
    (elsewhere / "Documents").mkdir()
    if name == "checkpoints":
        shutil.rmtree(copy / name)
    (copy / name).symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match=f"{name} is a link"):
        train(config(folder), copy)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["9", "Documents"]


def test_only_what_a_step_has_named_is_put_back(copy, folder):
    for name in ("Documents", "²", "007"):
        (copy / "replaced" / name).mkdir(parents=True)
    (copy / "checkpoints" / "²").mkdir()
    assert train(config(folder), copy) == 0
    assert sorted(path.name for path in (copy / "replaced").iterdir()) == ["007", "Documents", "²"]
    with pytest.raises(CheckpointError, match="--step ²"):
        checkpoint_meta.choose(copy, "²")


def test_a_run_from_before_a_setting_was_there_is_loaded_and_continued(copy, folder):
    for step in checkpoint_meta.steps(copy):
        path = copy / "checkpoints" / str(step) / "meta" / "metadata"
        meta = json.loads(path.read_text())
        del meta["config"]["model"]["pool_from"]
        meta["meta_digest"] = checkpoint_meta.meta_digest(meta)
        path.write_text(json.dumps(meta))
    assert jaxcat.load(copy).config.model.pool_from == "cut"
    assert train(config(folder, epochs=4), copy) == 0


RECORD = {"epoch": 1, "step": 3} | dict.fromkeys(checkpoint_meta.METRICS, 0.5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", {}),
        ("config", {"model": 3}),
        ("preprocessing", {"mean": [0]}),
        ("history", [{}]),
        ("history", [1]),
        ("history", [RECORD | {"validation/accuracy": "x"}]),
        ("history", [RECORD | {"step": 3.5}]),
        ("history", [{name: value for name, value in RECORD.items() if name != "train/accuracy"}]),
        ("length", []),
    ],
)
def test_a_description_signed_anew_is_checked_all_the_same(copy, key, value):
    for step in checkpoint_meta.steps(copy):
        path = copy / "checkpoints" / str(step) / "meta" / "metadata"
        meta = {**json.loads(path.read_text()), key: value}
        meta["meta_digest"] = checkpoint_meta.meta_digest(meta)
        path.write_text(json.dumps(meta))
    with pytest.raises(CheckpointError):
        jaxcat.load(copy)


@pytest.mark.parametrize("allowed", [2_000, 20_000])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(finished, folder, tmp_path, allowed):
    """No file may grow beyond `allowed` bytes, which fails like a full disk: in mid-write, in whatever is written."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "import jax, small, test_recovery\n"
        "jax.config.update('jax_platforms', 'cpu')\n"
        "from jaxcat import cli\n"
        "from jaxcat.train import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({allowed}, {allowed}))\n"
        "cli.run(lambda argv: train(test_recovery.config(Path(argv[0])), Path(argv[1])))\n"
    )
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "run")]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    # Orbax logs what its own threads met; the command's word is the one line that begins with "error: "
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(tmp_path / "run") in line
    assert "File too large" in line
    assert train(config(folder), tmp_path / "run") == 0
    assert len(metrics(tmp_path / "run")) == 3
    assert not list((tmp_path / "run").rglob("*tmp*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_small_disk_that_fills_up(folder, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (disk / "filler").write_bytes(bytes(700_000))
        with pytest.raises(CheckpointError, match="No space left on device"):
            train(config(folder, epochs=30), disk / "run")
        (disk / "filler").unlink()
        assert train(config(folder), disk / "run") == 0
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_workdir_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match="cannot be written: Permission denied"):
        train(config(folder), tmp_path / "run")


def test_a_workdir_that_is_a_file(folder, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        train(config(folder), tmp_path / "run")


# Interruption


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["bottleneck.views=0"],
        ["bottleneck.views=3"],
        # many steps in one compiled loop
        ["bottleneck.views=3", "model.train_from=head", "model.train_bn=False", "checkpoint.every_steps=4"],
    ],
    ids=["streaming", "bottlenecks", "loops"],
)
def test_killed_at_random_moments(tmp_path, settings):
    """The short form of what docs/reliability.md reports of 50 and more kills, streaming and on bottlenecks."""
    options = ["--kills", "3", "--workdir", str(tmp_path / "runs"), *(f"--config.{setting}" for setting in settings)]
    done = subprocess.run(
        [sys.executable, "scripts/kill_test.py", *options],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 of them different" in done.stdout


def interrupted(folder: Path, workdir: Path, *signals: signal.Signals, pause: float = 0.0) -> tuple[int, str]:
    """Status and output of a long run that gets these signals, `pause` seconds apart, after its first epoch."""
    arguments = ["--config.data.dir=" + str(folder), "--config.model.weights=none", "--config.model.width=0.0625"]
    arguments += ["--config.data.image_size=75", "--config.epochs=100000", "--config.model.cut=mixed0"]
    command = [sys.executable, "-m", "jaxcat.train", "--config", "configs/folder.py", "--workdir", str(workdir)]
    process = subprocess.Popen(
        command + arguments,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        output = ""
        while "epoch   1/" not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        for number in signals:
            process.send_signal(number)
            time.sleep(pause)
        output += process.communicate(timeout=60)[0]
    finally:
        process.kill()
    return process.returncode, output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_leaves(folder, tmp_path, number, status):
    returned, output = interrupted(folder, tmp_path / "run", number)
    assert returned == status
    last = output.strip().splitlines()[-1]
    assert last.startswith("to continue: python -m jaxcat.train --config configs/folder.py --workdir")
    recovery.verify(tmp_path / "run", checkpoint_meta.steps(tmp_path / "run")[-1])


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(folder, tmp_path):
    """Two in the same instant: the second finds the default action, and the process dies of it without a word more."""
    returned, output = interrupted(folder, tmp_path / "run", signal.SIGTERM, signal.SIGTERM, pause=0.003)
    assert returned in (-signal.SIGTERM, 143)
    if returned == -signal.SIGTERM:
        assert "to continue" not in output


def test_interrupted_in_validation_and_at_the_end_of_an_epoch(folder, tmp_path, monkeypatch):
    """At every look there is, in turn: the run ends at the same bits."""
    import jaxcat.train as module

    settings = {"epochs": 2}
    assert train(config(folder, **settings), tmp_path / "whole") == 0
    at = small.InterruptedAt(0)
    monkeypatch.setattr(module, "Interruption", at)
    for limit in (3, 5):  # the last of three steps, and the second batch of validation
        workdir = tmp_path / str(limit)
        at.at = limit
        assert train(config(folder, **settings), workdir) == 143
        at.at = 1  # again at once, wherever that is now
        assert train(config(folder, **settings), workdir) == 143
        at.at = 0
        assert train(config(folder, **settings), workdir) == 0
        assert outcome(workdir) == outcome(tmp_path / "whole"), limit


# Determinism


def test_killed_before_old_checkpoints_were_removed(folder, tmp_path):
    """A finished run that is started again keeps the checkpoints that an untouched one keeps."""
    assert train(config(folder), tmp_path / "run") == 0
    kept = checkpoint_meta.steps(tmp_path / "run")
    shutil.copytree(tmp_path / f"run/checkpoints/{kept[-1]}", tmp_path / "run/checkpoints/1")
    assert train(config(folder), tmp_path / "run") == 0
    assert checkpoint_meta.steps(tmp_path / "run") == kept


@pytest.mark.parametrize("views", [0, 2])
def test_the_same_seed_gives_the_same_run_with_any_number_of_threads(folder, tmp_path, monkeypatch, views):
    settings = {"data.augment": "article", "model.dropout": 0.3, "model.cut": "mixed1", "model.train_from": "mixed1"}
    settings["bottleneck.views"] = views
    for name, threads in (("one", 1), ("six", 6)):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / f"cache_{name}"))
        assert train(config(folder, **settings), tmp_path / name) == 0
    assert train(config(folder, **settings, seed=1), tmp_path / "other") == 0
    assert outcome(tmp_path / "one") == outcome(tmp_path / "six")
    assert metrics(tmp_path / "one") != metrics(tmp_path / "other")
    assert (data.order(24, seed=0, epoch=0) != data.order(24, seed=1, epoch=0)).any()


# Workdirs from elsewhere


def test_descriptions_that_are_not_what_they_should_be(copy):
    last = checkpoint_meta.steps(copy)[-1]
    path = copy / "checkpoints" / str(last) / "meta" / "metadata"
    good = json.loads(path.read_text())
    changed = [{**good, key: value} for key in checkpoint_meta.META_TYPES for value in (None, "x", 3.5)]
    texts = [json.dumps(meta) for meta in changed] + ["", "[]", "null", "{", "[" * 100_000, '{"format": 1}', "\x00"]
    for text in texts:
        path.write_text(text)
        with pytest.raises(CheckpointError):
            checkpoint_meta.read_meta(copy, last)


def test_nothing_of_a_workdir_is_unpickled_or_written_elsewhere(copy, folder, tmp_path):
    """Python reports every unpickled global and every file opened to write: none, and none outside the workdir."""
    code = (
        "import sys\n"
        "events = []\n"
        "def note(event, arguments):\n"
        "    if event == 'pickle.find_class': events.append(('pickle', *arguments))\n"
        "    if event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+'):\n"
        "        events.append(('write', str(arguments[0])))\n"
        "from jaxcat import cli, evaluate\n"
        "import sklearn.metrics, tensorflow\n"
        "sys.addaudithook(note)\n"
        "assert evaluate.main(['--workdir', sys.argv[1]]) == 0\n"
        "print('EVENTS', events)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAXCAT_CACHE": str(tmp_path / "cache")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("EVENTS")]
    events = ast.literal_eval(line.removeprefix("EVENTS "))
    assert [event for event in events if event[0] == "pickle"] == []
    written = [event[1] for event in events if event[0] == "write" and not event[1].startswith("/dev/")]
    assert written, "the evaluation is among them"
    assert [path for path in written if not path.startswith(str(tmp_path)) and path != tempfile.gettempdir()] == []
