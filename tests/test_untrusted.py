"""Workdirs from elsewhere: what is planted in them leads nowhere, and what they say of themselves is checked."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from small_run import config

import jaxcat
from jaxcat import evaluate
from jaxcat.errors import CheckpointError
from jaxcat.runs import choice, fields
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import workdir as workdirs
from jaxcat.train import train

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.slow
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


@pytest.mark.parametrize("name", ["checkpoints", "replaced", "damaged"])
def test_a_planted_link_in_place_of_a_folder_is_refused_and_nothing_there_is_touched(copy, folder, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "9").mkdir(parents=True)
    (elsewhere / "Documents").mkdir()
    if name == "checkpoints":
        shutil.rmtree(copy / name)
    if name == "damaged":  # where a checkpoint that is not good would be put
        (copy / "checkpoints" / str(workdirs.steps(copy)[-1]) / "meta" / "metadata").write_text("{}")
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
        choice.choose(copy, "²")


@pytest.mark.slow
def test_a_run_from_before_a_setting_was_there_is_loaded_and_continued(copy, folder):
    for step in workdirs.steps(copy):
        path = copy / "checkpoints" / str(step) / "meta" / "metadata"
        meta = json.loads(path.read_text())
        del meta["config"]["model"]["pool_from"]
        meta["meta_digest"] = checkpoint_meta.meta_digest(meta)
        path.write_text(json.dumps(meta))
    assert jaxcat.load(copy).config.model.pool_from == "cut"
    assert train(config(folder, epochs=4), copy) == 0


ENTRY = {"epoch": 1, "step": 3} | dict.fromkeys(fields.ENTRY, 0.5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", {}),
        ("config", {"model": 3}),
        ("preprocessing", {"mean": [0]}),
        ("history", [{}]),
        ("history", [1]),
        ("history", [ENTRY | {"validation/accuracy": "x"}]),
        ("history", [ENTRY | {"validation/accuracy": None}]),  # both may be null, not one of them
        ("history", [ENTRY | {"validation/loss": None}]),
        ("history", [ENTRY | {"train/loss": None}]),
        ("history", [ENTRY | {"step": 3.5}]),
        ("history", [{name: value for name, value in ENTRY.items() if name != "train/accuracy"}]),
        ("length", []),
    ],
)
def test_a_description_signed_anew_is_checked_all_the_same(copy, key, value):
    for step in workdirs.steps(copy):
        path = copy / "checkpoints" / str(step) / "meta" / "metadata"
        meta = {**json.loads(path.read_text()), key: value}
        meta["meta_digest"] = checkpoint_meta.meta_digest(meta)
        path.write_text(json.dumps(meta))
    with pytest.raises(CheckpointError):
        jaxcat.load(copy)


def test_descriptions_that_are_not_what_they_should_be(copy):
    last = workdirs.steps(copy)[-1]
    path = copy / "checkpoints" / str(last) / "meta" / "metadata"
    good = json.loads(path.read_text())
    changed = [{**good, key: value} for key in checkpoint_meta.SCHEMA for value in (None, "x", 3.5)]
    texts = [json.dumps(meta) for meta in changed] + ["", "[]", "null", "{", "[" * 100_000, '{"format": 1}', "\x00"]
    for text in texts:
        path.write_text(text)
        with pytest.raises(CheckpointError):
            checkpoint_meta.read_meta(copy, last)


@pytest.mark.slow
def test_nothing_of_a_workdir_is_unpickled_or_written_elsewhere(copy, folder, tmp_path):
    """Python reports every unpickled global and every file opened to write: none, and none outside the workdir."""
    code = (
        "import sys\n"
        "events = []\n"
        "def note(event, arguments):\n"
        "    if event == 'pickle.find_class': events.append(('pickle', *arguments))\n"
        "    if event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+'):\n"
        "        events.append(('write', str(arguments[0])))\n"
        "from jaxcat import evaluate\n"
        "import sklearn.metrics\n"
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
