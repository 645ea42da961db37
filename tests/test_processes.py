"""2 and 4 processes with two CPU devices each: the figures of one process, and clear ends."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import small
from processes import Processes
from small_run import TIMES, metrics

import jaxcat
from jaxcat.runs import recovery
from jaxcat.runs import workdir as workdirs
from jaxcat.runs.meta import read_meta

pytestmark = pytest.mark.slow

LOST_AFTER = 8  # seconds, in place of 20: what waits for the end of another process waits no longer than it must

FIGURES = ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy")
SETTINGS = (
    *("--config", "configs/folder.py:trained", "--config.model.weights=none", "--config.model.width=0.0625"),
    *("--config.data.image_size=75", "--config.model.cut=mixed0", "--config.model.train_from=mixed0"),
    *("--config.data.augment=article", "--config.batch_size=7", "--config.checkpoint.every_steps=2"),
    "--config.bottleneck.views=0",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Numbers that nothing divides: 22 images to train on, in batches of 7, and 11 to validate."""
    root = small.image_folder(tmp_path_factory.mktemp("images"), train=11, validation=6)
    (root / "validation" / "disc" / "000.png").unlink()
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory, folder) -> Path:
    """The same run in 1, 2 and 4 processes, in folders of these names."""
    root = tmp_path_factory.mktemp("runs")
    for count in (1, 2, 4):
        # one process has as many devices as two have, so that nothing differs but the number of processes
        with train(count, root / str(count), folder, "--config.epochs=2", devices=4 if count == 1 else 2) as run:
            assert run.statuses() == [0] * count, run.output()
    return root


def train(count: int, workdir: Path, folder: Path, *more: str, **options) -> Processes:
    arguments = [*SETTINGS, "--workdir", str(workdir), f"--config.data.dir={folder}", *more]
    return Processes(
        count, ("-m", "jaxcat.train"), arguments, logs=workdir.with_name(f"{workdir.name}.{count}.logs"), **options
    )


@pytest.mark.parametrize("count", [2, 4])
def test_the_same_losses_as_one_process(runs, count):
    alone, several = metrics(runs / "1"), metrics(runs / str(count))
    assert [record["step"] for record in several] == [4, 8]
    for mine, theirs in zip(alone, several, strict=True):
        np.testing.assert_allclose([mine[name] for name in FIGURES], [theirs[name] for name in FIGURES], rtol=2e-4)


def test_bottlenecks_of_two_processes_serve_them_and_one_alone(runs, folder, tmp_path, monkeypatch):
    """Computed together, into a cache that both write; then all found by a single process on another device count."""
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    views = ("--config.epochs=2", "--config.bottleneck.views=2", "--config.bottleneck.dtype=float32")
    for count, said in ((2, "55 of 55 to compute"), (1, "all 55 found")):
        with train(count, tmp_path / str(count), folder, *views) as run:
            assert run.statuses() == [0] * count, run.output()
            assert said in " ".join(run.output().split())
        for mine, theirs in zip(metrics(tmp_path / str(count)), metrics(runs / "1"), strict=True):
            np.testing.assert_allclose([mine[name] for name in FIGURES], [theirs[name] for name in FIGURES], rtol=2e-4)


def test_a_head_on_bottlenecks_in_two_processes_gives_the_losses_of_one(folder, tmp_path, monkeypatch):
    """Two steps in one compiled loop (`every_steps`), each process giving its part of both, rows mixed."""
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    head = (
        *("--config.model.train_from=head", "--config.bottleneck.views=2", "--config.bottleneck.dtype=float32"),
        *("--config.optim.mix=mixup_bottlenecks", "--config.optim.average=0.9"),
    )
    for count, devices in ((1, 4), (2, 2)):
        with train(count, tmp_path / str(count), folder, *head, "--config.epochs=3", devices=devices) as run:
            assert run.statuses() == [0] * count, run.output()
    for mine, theirs in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        np.testing.assert_allclose([mine[name] for name in FIGURES], [theirs[name] for name in FIGURES], rtol=2e-4)


def test_a_workdir_whose_path_orbax_misreads(folder, tmp_path):
    """Each process reaches it through a link of its own, and they write one checkpoint together."""
    workdir = tmp_path / "run [1] a\\b"
    with train(2, workdir, folder, "--config.epochs=1", "--config.checkpoint.every_steps=0") as run:
        assert run.statuses() == [0, 0], run.output()
    assert sorted(path.name for path in tmp_path.iterdir()) == [workdir.name, f"{workdir.name}.2.logs"]
    (step,) = workdirs.steps(workdir)
    recovery.verify(workdir, step)
    assert jaxcat.load(workdir).classes == ("disc", "square")


@pytest.mark.parametrize("count", [2, 4])
def test_what_is_shared_is_written_once_and_reads_back(runs, count):
    for step in workdirs.steps(runs / str(count)):
        recovery.verify(runs / str(count), step)
    assert jaxcat.load(runs / str(count)).predict(list(small.images(3))).shape == (3, 2)
    assert not list((runs / str(count)).rglob("*tmp*"))
    for silent in (runs / f"{count}.{count}.logs").glob("[1-9].log"):
        assert "epoch" not in silent.read_text()


@pytest.mark.parametrize("count", [2, 4])
def test_the_list_of_records_is_that_of_one_process(runs, count):
    text = (runs / str(count) / "records.jsonl").read_bytes()
    assert text == (runs / "1" / "records.jsonl").read_bytes()
    meta = read_meta(runs / str(count), workdirs.steps(runs / str(count))[-1])
    assert meta.records.list_digest == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(("first", "then"), [(4, 1), (1, 4)])
def test_a_checkpoint_of_some_is_continued_by_others(runs, folder, tmp_path, first, then):
    shutil.copytree(runs / str(first), tmp_path / "run")
    with train(then, tmp_path / "run", folder, "--config.epochs=3", devices=2) as run:
        assert run.statuses() == [0] * then, run.output()
    before, after = metrics(runs / str(first)), metrics(tmp_path / "run")
    assert after[:2] == before
    assert after[2]["step"] == 12


def test_evaluate_counts_each_image_once(runs, folder, tmp_path):
    results = []
    for count in (1, 2):
        shutil.copytree(runs / "2", tmp_path / str(count))
        arguments = ["--workdir", str(tmp_path / str(count)), "--batch-size", "4"]
        with Processes(count, ("-m", "jaxcat.evaluate"), arguments, logs=tmp_path / "logs") as run:
            assert run.statuses() == [0] * count, run.output()
        results.append(json.loads((tmp_path / str(count) / "evaluation" / "validation.json").read_text()))
    alone, several = results
    assert alone["count"] == several["count"] == 11
    assert alone["confusion"] == several["confusion"]
    assert several["loss"] == pytest.approx(alone["loss"], rel=1e-5)


@pytest.mark.parametrize("victim", [0, 1])  # 0 also coordinates
def test_one_process_killed_ends_the_others_and_the_run_goes_on(folder, tmp_path, victim):
    with train(2, tmp_path / "run", folder, "--config.epochs=100000", lost_after=LOST_AFTER) as run:
        run.wait_for("epoch   3/")
        run.send(signal.SIGKILL, process=victim)
        ended = run.statuses(seconds=LOST_AFTER + 40)
        assert ended[victim] == -signal.SIGKILL
        # our line where the step notices; JAX ends the process itself where Orbax was waiting for the others
        assert ended[1 - victim] in (1, -signal.SIGABRT)
        said = ("another process of this run has ended", "another task died", "leader", "coordination service")
        assert any(words in run.output(1 - victim) for words in said), run.output(1 - victim)
    found = workdirs.steps(tmp_path / "run")
    with train(2, tmp_path / "run", folder, f"--config.epochs={found[-1] // 4 + 1}") as run:
        assert run.statuses() == [0, 0], run.output()
    assert metrics(tmp_path / "run")[-1]["step"] > found[-1]


def test_one_process_with_a_bad_image_ends_all(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    settings = ("--config.epochs=100000", "--config.data.cache_gb=0.0")
    own = lambda process: (f"--config.data.dir={tmp_path / 'copy'}",) if process else ()  # noqa: E731
    with train(2, tmp_path / "run", folder, *settings, each=own, lost_after=LOST_AFTER) as run:
        run.wait_for("epoch   1/")
        for path in (tmp_path / "copy" / "train").rglob("*.png"):
            path.write_bytes(b"")
        ended = run.statuses(seconds=LOST_AFTER + 40)
        assert ended[1] == 2
        assert "the file is empty" in run.output(1)
        assert ended[0] in (1, -signal.SIGABRT)


@pytest.mark.parametrize("views", [0, 1])
def test_processes_that_find_different_images_are_told_so(folder, tmp_path, views):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/train/disc/000.png").rename(tmp_path / "copy/train/disc/999.png")
    own = lambda process: (f"--config.data.dir={tmp_path / 'copy'}",) if process else ()  # noqa: E731
    with train(2, tmp_path / "run", folder, f"--config.bottleneck.views={views}", each=own) as run:
        assert run.statuses(seconds=60) == [2, 2], run.output()
        assert "do not have the same images" in run.output()


LEAVES = """
import argparse, sys
from jaxcat.system import cli
from jaxcat.system.processes import initialize_distributed, values_of_processes

def main(argv):
    parser = argparse.ArgumentParser()
    cli.add_process_flags(parser)
    arguments, reason = parser.parse_known_args(argv)
    initialize_distributed(arguments.coordinator, num_processes=2, process_id=arguments.process_id)
    values_of_processes(1)
    if arguments.process_id == 1:
        raise {"interrupt": KeyboardInterrupt, "defect": ZeroDivisionError}[reason[0]]("one process only")
    values_of_processes(2)

cli.run(main)
"""


@pytest.mark.parametrize(("reason", "status", "says"), [("interrupt", 130, "interrupted"), ("defect", 1, "Traceback")])
def test_one_process_that_leaves_by_itself_ends_the_others(tmp_path, reason, status, says):
    with Processes(2, ("-c", LEAVES), [reason], logs=tmp_path / "logs", lost_after=LOST_AFTER) as run:
        ended = run.statuses(seconds=LOST_AFTER + 40)
        assert ended[1] == status
        assert says in run.output(1)
        assert ended[0] in (1, -signal.SIGABRT)


PLACES = """
import argparse
import numpy as np
from jaxcat.system import cli
from jaxcat.system.devices import make_mesh, place_replicated
from jaxcat.system.processes import initialize_distributed

def main(argv):
    parser = argparse.ArgumentParser()
    cli.add_process_flags(parser)
    number = parser.parse_args(argv).process_id
    initialize_distributed(parser.parse_args(argv).coordinator, num_processes=2, process_id=number)
    tree = {"kernel": np.array([[1, np.nan]], np.float32), "count": np.int32(3), "none": np.zeros((0, 2), np.float32)}
    for name, array in place_replicated(make_mesh(), tree).items():
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, tree[name])
        print(name, len(array.addressable_shards), len(array.sharding.device_set), array.dtype)
    place_replicated(make_mesh(), tree | {"count": np.int32(number)})

cli.run(main)
"""


def test_arrays_are_placed_if_they_are_the_same_in_every_process(tmp_path):
    with Processes(2, ("-c", PLACES), [], logs=tmp_path / "logs") as run:
        assert run.statuses(seconds=60) == [2, 2], run.output()
        for process in (0, 1):
            said = run.output(process)  # a library of JAX writes lines of its own in between
            placed = ("count 2 4 int32", "kernel 2 4 float32", "none 2 4 float32")
            assert [line for line in placed if line not in said] == [], said
            assert "do not begin with the same numbers" in said


def test_sigterm_to_one_process_stops_all_at_the_same_step(folder, tmp_path):
    with train(2, tmp_path / "run", folder, "--config.epochs=100000") as run:
        run.wait_for("epoch   2/")
        run.send(signal.SIGTERM, process=1)
        assert run.statuses() == [143, 143], run.output() + run.output(1)
        assert "to continue: python -m jaxcat.train --config configs/folder.py:trained" in run.output()
    step = workdirs.steps(tmp_path / "run")[-1]
    recovery.verify(tmp_path / "run", step)
    assert set(TIMES) <= set(json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0]))


def test_a_workdir_held_by_another_run_refuses_every_process(folder, tmp_path):
    with train(1, tmp_path / "run", folder, "--config.epochs=100000", devices=1) as holder:
        holder.wait_for("epoch   1/")
        with train(2, tmp_path / "run", folder, "--config.epochs=1") as run:
            assert run.statuses() == [1, 1]
            assert "another run holds it" in run.output()
