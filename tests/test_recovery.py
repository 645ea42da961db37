"""Damage, loss and a disk that is full: named, survived where that is possible, never answered by starting over."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_run import config, metrics, outcome
from test_paths import meta_of, tree

import jaxcat
from jaxcat.errors import CheckpointError, OtherFormatError
from jaxcat.runs import checkpoints, choice, recovery
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import workdir as workdirs
from jaxcat.train import train
from jaxcat.training import reporting

REPOSITORY = Path(__file__).resolve().parent.parent


def flip(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.slow
def test_a_flipped_byte_in_any_file_is_found_or_changes_nothing(folder, tmp_path):
    """Every file of a checkpoint, at both ends and in the middle: `verify` refuses, or all is as it was."""
    few = {"model.cut": "stem", "model.train_from": "stem", "optim.name": "sgd", "epochs": 1}
    assert train(config(folder, **few), tmp_path) == 0
    (last,) = workdirs.steps(tmp_path)
    good, there = checkpoint_meta.read_meta(tmp_path, last), tmp_path / "checkpoints" / str(last)
    found, harmless = [], 0
    for path in files(there):
        before = path.read_bytes()
        for place in np.linspace(0, 1, 3):
            flip(path, place)
            try:
                assert recovery.verify(tmp_path, last) == good, path
                harmless += 1
            except CheckpointError as error:
                found.append(str(error))
            path.write_bytes(before)
    assert all(str(there) in error and "\n" not in error for error in found)
    assert len(found) > 20, f"{len(found)} found, {harmless} harmless"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["bytes", "meta", "file gone", "folder gone", "meta gone", "empty file"])
def test_a_damaged_latest_checkpoint_is_set_aside_and_the_run_ends_at_the_same_bits(
    finished, copy, folder, damage, caplog
):
    last = workdirs.steps(copy)[-1]
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
    (message,) = [record.getMessage() for record in caplog.records if record.name == "jaxcat.runs.recovery"]
    assert str(there) in message
    assert f"continues from step {workdirs.steps(finished)[-2]}" in message


def test_nothing_good_left_is_an_error_and_never_a_fresh_start(copy, folder):
    for step in workdirs.steps(copy):
        (copy / "checkpoints" / str(step) / "meta" / "metadata").write_text("{}")
    before = (copy / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="none of its checkpoints is good") as caught:
        train(config(folder), copy)
    assert all(str(step) in str(caught.value) for step in workdirs.steps(copy))
    assert (copy / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_checkpoints_that_are_gone_are_spoken_of(finished, copy, folder, caplog):
    shutil.rmtree(copy / "checkpoints")
    assert train(config(folder), copy) == 0
    assert any("3 epochs and no checkpoint" in record.getMessage() for record in caplog.records)
    assert outcome(copy) == outcome(finished)


@pytest.mark.slow
def test_a_continued_run_keeps_its_best(tmp_path, folder):
    """The first save after a start must know the epochs before it, or it takes the best checkpoint for an old one."""
    settings = {"optim.learning_rate": 0.3, "epochs": 5}
    assert train(config(folder, **settings), tmp_path / "whole") == 0
    for epochs in (2, 3, 4, 5):
        assert train(config(folder, **{**settings, "epochs": epochs}), tmp_path / "parts") == 0
        history = checkpoint_meta.read_meta(tmp_path / "parts", workdirs.steps(tmp_path / "parts")[-1]).history
        assert checkpoint_meta.best_epoch(history)["step"] in workdirs.steps(tmp_path / "parts")
    assert workdirs.steps(tmp_path / "parts") == workdirs.steps(tmp_path / "whole")


def test_a_missing_best_is_named(copy, caplog):
    steps = workdirs.steps(copy)
    meta = checkpoint_meta.read_meta(copy, steps[-1])
    best = checkpoint_meta.best_epoch(meta.history)["step"]
    shutil.rmtree(copy / "checkpoints" / str(best))
    if best == steps[-1]:
        assert choice.choose(copy, "best") == steps[-2]
    else:
        assert choice.choose(copy, "best") == steps[-1]
        assert any(f"step {best}, is missing" in record.getMessage() for record in caplog.records)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_frozen_tree_of_a_start_without_checkpoint_is_replaced(tmp_path, folder):
    """Killed before its first checkpoint, then started with another seed: the frozen tree must be the new one's."""
    assert train(config(folder, epochs=1), tmp_path / "run") == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train(config(folder, epochs=1, seed=7), tmp_path / "run") == 0
    assert jaxcat.load(tmp_path / "run").config.seed == 7


@pytest.mark.slow
def test_a_checkpoint_stays_until_its_successor_is_written(copy, folder, monkeypatch):
    """A run interrupted before the validation of an epoch saves that step twice; the second write may fail."""
    last = workdirs.steps(copy)[-1]

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Failing(checkpoints.Checkpoints):
        def save(self, items, meta):
            self._manager.save = full
            super().save(items, dataclasses.replace(meta, step=last))

    with monkeypatch.context() as patch:
        patch.setattr("jaxcat.training.loop.Checkpoints", Failing)
        with pytest.raises(CheckpointError, match="No space left"):
            train(config(folder, epochs=4), copy)
    assert last not in workdirs.steps(copy)
    assert train(config(folder), copy) == 0
    assert workdirs.steps(copy)[-1] == last
    assert recovery.verify(copy, last).step == last


def test_a_checkpoint_of_another_version_is_not_taken_for_damage(copy, folder):
    step = workdirs.steps(copy)[-1]
    path = copy / "checkpoints" / str(step) / "meta" / "metadata"
    meta = json.loads(path.read_text()) | {"format": 99}
    path.write_text(json.dumps(meta))  # its digest no longer fits: damage
    with pytest.raises(CheckpointError, match="damaged on disk"):
        checkpoint_meta.read_meta(copy, step)
    meta["meta_digest"] = checkpoint_meta.meta_digest(meta)
    path.write_text(json.dumps(meta))
    with pytest.raises(OtherFormatError, match=r"format 99.*use the jaxcat that wrote it"):
        train(config(folder, epochs=4), copy)
    assert not (copy / "damaged").exists()
    assert workdirs.steps(copy)[-1] == step


def test_what_cannot_be_listed_or_completed_is_one_line(copy, folder, monkeypatch):
    """The checkpoints of another user; and a report that a kill has left undone, on a disk that is full now."""

    def refused(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refused)
        with pytest.raises(CheckpointError, match=r"checkpoints: cannot be listed: Permission denied"):
            jaxcat.load(copy)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (copy / "metrics.jsonl").unlink()
    monkeypatch.setattr(reporting, "write_text", full)
    with pytest.raises(
        CheckpointError, match=r"cannot be written: No space left on device.*the same command continues"
    ):
        train(config(folder), copy)


@pytest.mark.parametrize("hidden", ["checkpoints", "3"])
def test_a_workdir_or_checkpoints_that_may_not_be_entered_are_one_line(tmp_path, monkeypatch, hidden):
    """The bits that let a directory be listed are others than those that let its entries be looked at."""
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    stat = Path.stat

    def refusing(self, **options):
        if self.name == hidden:
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    with pytest.raises(CheckpointError, match=r"checkpoints: cannot be listed: Permission denied; ask its owner"):
        choice.choose(tmp_path, "latest")


def test_a_tensorboard_that_cannot_be_made_is_one_line(tmp_path, folder):
    pytest.importorskip("tensorboardX")
    (tmp_path / "tensorboard").write_text("in the way")
    refused = pytest.raises(CheckpointError, match=r"--workdir .*cannot be written: Not a directory")
    with refused, reporting.Reporter(tmp_path, [], config=config(folder)):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [2_000, 20_000])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(finished, folder, tmp_path, allowed):
    """No file may grow beyond `allowed` bytes, which fails like a full disk: in mid-write, in whatever is written."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "import jax, small, small_run\n"
        "jax.config.update('jax_platforms', 'cpu')\n"
        "from jaxcat.system import cli\n"
        "from jaxcat.train import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({allowed}, {allowed}))\n"
        "cli.run(lambda argv: train(small_run.config(Path(argv[0])), Path(argv[1])))\n"
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


@pytest.mark.slow
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


def test_no_checkpoint_is_begun_before_the_frozen_tree_is_whole(tmp_path, monkeypatch):
    saved = {"model": tree(), "training": {"step": jnp.int32(3)}}
    meta, save, there = meta_of(saved), ocp.CheckpointManager.save, []

    def watched(manager, *given, **more):
        there.append((tmp_path / "frozen").is_dir())  # Orbax gives it this name when all of it is written
        return save(manager, *given, **more)

    monkeypatch.setattr(ocp.CheckpointManager, "save", watched)
    with checkpoints.Checkpoints(tmp_path) as writer:
        writer.save_frozen({"params": {"large": jnp.ones((2000, 1000))}, "stats": {}})
        writer.save(saved, meta)
    assert there == [True]


def test_leaving_waits_for_the_frozen_tree(tmp_path):
    with checkpoints.Checkpoints(tmp_path) as writer:
        writer.save_frozen({"params": {"large": jnp.ones((2000, 1000))}, "stats": {}})
    assert (tmp_path / "frozen").is_dir()


def test_a_frozen_tree_of_a_start_without_a_checkpoint_is_replaced(tmp_path):
    for name in ("frozen", "frozen.orbax-checkpoint-tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "left").touch()
    with checkpoints.Checkpoints(tmp_path) as writer:
        writer.save_frozen(tree())
    assert not (tmp_path / "frozen" / "left").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "frozen"]
