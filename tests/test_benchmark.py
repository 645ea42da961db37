"""scripts/benchmark.py: turns, ratios and reasons are right, and its model part runs where TensorFlow is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarking import duration
from benchmarking.rounds import Effort, Entry, compete, rows
from benchmarking.table import draw
from benchmarking.worker import PeerError, Worker

REPOSITORY = Path(__file__).resolve().parent.parent

EFFORT = Effort(rounds=3, turn_seconds=0.0, case_seconds=1e9)


class Fake:
    """A worker that takes `seconds`, and fails at the round `fails` (-1: at the preparation)."""

    def __init__(self, name: str, seconds: float, log: list, fails: int | None = None):
        self.name, self.seconds, self.log, self.fails = name, seconds, log, fails

    def ask(self, question: str, **arguments):
        if question == "prepare" and self.fails == -1:
            raise PeerError("not installed")
        if question == "time":
            self.log.append(self.name)
            if self.fails is not None and self.log.count(self.name) > self.fails:
                raise PeerError("out of memory")
            return self.seconds
        return None


def entries(log: list, **peers: tuple) -> list[Entry]:
    return [Entry(name, Fake(name, seconds, log, fails), "task", {}) for name, (seconds, fails) in peers.items()]


def test_peers_work_in_turn_and_a_failure_stops_nobody_else():
    log: list[str] = []
    seconds, reasons = compete(entries(log, a=(1.0, None), b=(2.0, 1), c=(1.0, -1), d=(4.0, None)), EFFORT)
    assert log == ["a", "b", "d", "a", "b", "d", "a", "d"]
    assert seconds == {"a": [1.0] * 3, "d": [4.0] * 3}
    assert reasons == {"b": "out of memory", "c": "not installed"}


def test_figures_ratios_and_reasons_in_the_table():
    found = rows(
        "step", "a case", entries([], jaxcat=(0.5, None), other=(1.0, None), gone=(1.0, -1)), EFFORT,
        amount=20, unit="images/s", reference="jaxcat",
    )  # fmt: skip
    assert [row.values for row in found] == [[40.0] * 3, [20.0] * 3, []]
    assert [row.ratios for row in found] == [[], [2.0] * 3, []], "jaxcat's speed divided by the other's"
    cells = [list(column.cells) for column in draw(found).columns]
    assert cells[3] == ["40 images/s", "20 images/s", "skipped: not installed"]


def test_an_entry_may_do_more_in_a_call_than_the_others():
    epoch, step = entries([], jaxcat=(0.5, None), keras=(1.0, None))
    epoch.amount = 2000
    found = rows("cached", "a case", [epoch, step], EFFORT, amount=20, unit="images/s", reference="jaxcat")
    assert [row.values for row in found] == [[4000.0] * 3, [20.0] * 3]
    assert found[1].ratios == [200.0] * 3


def test_time_to_the_result_is_the_time_to_what_is_held_to_the_end():
    def run(seconds: float, *accuracies: float) -> dict:
        epochs = [
            {"validation/accuracy": accuracy, "wall_seconds": seconds * (number + 1) / len(accuracies)}
            for number, accuracy in enumerate(accuracies)
        ]
        return {"epochs": epochs, "seconds": seconds}

    measured = {"keras": [run(100, 0.8, 0.8)], "fast": [run(10, 0.9, 0.7, 0.8, 0.85)], "fast-again": [run(5, 0.9, 0.7)]}
    found = {(row.case, row.peer): row for row in duration.rows(measured)}
    assert found["time to Keras's mean accuracy, fast, empty cache", "jaxcat"].values == [7.5]
    assert "0.8000" in found["time to Keras's mean accuracy, fast, filled cache", "jaxcat"].skipped
    assert found["whole command, fast, empty cache", "jaxcat"].ratios == [10.0]
    assert found["whole command, fast, filled cache", "jaxcat"].ratios == [20.0]


def test_a_missing_peer_and_a_dead_process_are_reasons():
    with pytest.raises(PeerError, match="ModuleNotFoundError"):
        Worker("no_such_peer").ask("describe")
    worker = Worker("pillow")
    assert "pillow" in worker.ask("describe")["version"]
    worker._process.kill()
    with pytest.raises(PeerError, match="died"):
        worker.ask("describe")
    worker.close()


@pytest.mark.slow
def test_the_command_runs_without_tensorflow(tmp_path):
    """As on a machine with an accelerator: TensorFlow cannot be imported, and so Keras cannot."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("raise ImportError('TensorFlow is not here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "scripts/benchmark.py", "--only", "forward,step", "--sizes", "75", "--batches", "2"]
    command += ["--batch", "2", "--train-from", "head", "--rounds", "1", "--turn-seconds", "0"]
    command += ["--peers", "jaxcat,keras-tensorflow", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["peers"]) == ["jaxcat"]
    values = {(row["section"], row["peer"]): row["values"] for row in found["rows"]}
    assert all(values[section, "jaxcat"][0] > 0 for section in ("peak", "forward", "step"))
    assert values["forward", "keras-tensorflow"] == []
    assert "TensorFlow is not here" in done.stdout
