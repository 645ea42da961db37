"""jaxcat from Python and notebooks: `fit` does what the command does, shows its progress, and can be interrupted."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import rich.console
import small
import small_run
from PIL import Image

import jaxcat
from jaxcat import api
from jaxcat.errors import ConfigError, DataError
from jaxcat.system import console
from jaxcat.training import loop

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOK = REPOSITORY / "docs" / "jaxcat.ipynb"
TINY = {
    "model.weights": "none",
    "model.width": 1 / 16,
    "model.cut": "mixed0",
    "data.image_size": 75,
    "bottleneck.views": 0,
    "batch_size": 8,
    "epochs": 1,
}


# the request ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch) -> list:
    """The (config, workdir) that `fit` trains with; nothing is trained."""
    found: list = []
    monkeypatch.setattr(loop, "train", lambda *given: found.append(given) or 0)
    monkeypatch.setattr(api, "_history", lambda workdir: ())
    return found


def test_a_recipe_is_a_name_a_path_or_a_config(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.py"
    mine.write_text("from jaxcat.configs.cats_vs_dogs import get_config")
    settings = {"data.dir": Path("images"), "seed": np.int64(3), "optim.learning_rate": 1}
    config = small.tiny_config(tmp_path)
    for recipe in ("cats_vs_dogs:fast", f"{mine}:fast", config):
        run = jaxcat.fit(recipe, "run", settings=settings)
        assert run.workdir == tmp_path / "run"
    for trained, workdir in asked:
        assert (trained.data.dir, trained.seed, workdir) == (str(tmp_path / "images"), 3, tmp_path / "run")
        assert trained.optim.learning_rate == 1
    assert [trained.model.cut for trained, _ in asked] == ["fast", "fast", "mixed0"]
    assert (config.data.dir, config.seed) == (str(tmp_path), 0), "the caller's config stays as it is"
    jaxcat.fit(mine, "run", settings={"data.dir": "images"})


@pytest.mark.parametrize(
    ("recipe", "settings", "says"),
    [
        ("foldr", {}, "did you mean folder"),
        (3, {}, "must be the name or path of a recipe"),
        ("folder", {}, "data.dir is empty"),
        ("folder", {"data.dir": "x", "lr": 1}, "lr is not a setting; did you mean optim.learning_rate"),
        ("folder", {"data.dir": "x", "epochs": 0}, "epochs=0: must be at least 1"),
        ("folder", {"data.dir": "x", "epochs": "3"}, "epochs='3': must be of type int"),
        ("folder", {"data.dir": 3}, "data.dir=3: must be of type str"),
        ("folder", {"data.dir": "gs://bucket/x"}, "is a URL"),
    ],
)
def test_a_wrong_request_is_refused_as_by_the_command(asked, recipe, settings, says):
    with pytest.raises(ConfigError, match=says):
        jaxcat.fit(recipe, "run", settings=settings)
    assert not asked


def test_a_wrong_workdir_is_refused(asked):
    for workdir in ("", "gs://bucket/run", "~no_such_user/run"):
        with pytest.raises(ConfigError, match="^workdir "):
            jaxcat.fit("folder", workdir, settings={"data.dir": "x"})
    assert not asked


def test_what_is_imported_when_it_is_used():
    assert set(jaxcat.__all__) == {"Classifier", "Run", "fit", "load"}
    assert jaxcat.fit is api.fit
    with pytest.raises(AttributeError, match="nonesuch"):
        jaxcat.nonesuch  # noqa: B018


# runs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_trained_continued_and_used(folder, tmp_path, monkeypatch, capsys):
    settings = {**TINY, "data.dir": folder}
    monkeypatch.chdir(tmp_path)
    run = jaxcat.fit("folder:trained", "run", settings=settings)
    again = jaxcat.fit("folder:trained", "run", settings={**settings, "epochs": 2})
    assert [len(run.history), len(again.history)] == [1, 2]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert list(again.history) == lines
    assert "epoch   2/2" in capsys.readouterr().out
    assert again.classifier is again.classifier
    assert repr(again) == f"<jaxcat run in {tmp_path / 'run'}, epochs: 2>"
    assert again.classifier.predict([np.zeros((75, 75, 3), np.uint8)]).shape == (1, 2)
    with pytest.raises(ConfigError, match="optim.learning_rate"):
        jaxcat.fit("folder:trained", "run", settings={**settings, "optim.learning_rate": 0.5})


@pytest.mark.slow
def test_an_interrupted_run_raises_what_an_interrupt_raises_and_continues(folder, tmp_path, monkeypatch):
    at = small.InterruptedAt(2)
    monkeypatch.setattr(loop, "Interruption", at)
    config = small_run.config(folder)
    with pytest.raises(KeyboardInterrupt, match="saved"):
        jaxcat.fit(config, tmp_path / "run")
    at.at = 0
    assert len(jaxcat.fit(config, tmp_path / "run").history) == 3


@pytest.mark.slow
def test_in_another_thread_a_run_needs_no_signals(folder, tmp_path):
    runs: list = []

    def fit() -> None:
        runs.append(jaxcat.fit("folder:trained", tmp_path / "run", settings={**TINY, "data.dir": folder}))

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert len(runs[0].history) == 1


def test_a_second_interrupt_at_a_prompt_or_in_a_notebook_raises_and_does_not_kill(monkeypatch):
    from jaxcat.system.devices import make_mesh
    from jaxcat.system.interruption import Interruption

    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores interrupts
    try:
        with Interruption(make_mesh()) as interruption:
            signal.raise_signal(signal.SIGINT)
            assert interruption.received == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


# notebooks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(monkeypatch) -> None:
    """What IPython looks like in a notebook."""
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, version_info=(9, 0)))


def test_progress_in_a_notebook_is_one_line_that_is_removed_at_the_end(monkeypatch, notebook):
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    shown = rich.console.Console(file=io.StringIO(), force_terminal=False, width=100)
    with console.progress_of("images", total=100, console=shown) as advance:
        for _ in range(10):
            now += 20.0
            advance(10)
    written = shown.file.getvalue()
    assert written.startswith("\rimages: 10 of 100, 3 min left\rimages: 20 of 100, 3 min left\r")
    assert "\n" not in written
    assert written.endswith(" \r")


def test_epochs_in_a_notebook_show_a_line_that_changes(folder, tmp_path, monkeypatch, notebook, capsys):
    from jaxcat.training import reporting

    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_UPDATES", 0.0)
    jaxcat.fit("folder:trained", tmp_path / "run", settings={**TINY, "data.dir": folder})
    out = capsys.readouterr().out
    assert "\repoch 1/1  step 2 of 3  " in out
    assert any(line.rpartition("\r")[2].startswith("epoch   1/1") for line in out.split("\n"))
    assert "\x1b[" not in out


@pytest.mark.slow
def test_the_notebook_runs_in_jupyter(tmp_path, monkeypatch):
    """All its cells; the letters' network learns from 20 of each letter, in steps of 8: 65 steps in place of 144."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(NOTEBOOK, 4)
    (letters,) = (cell for cell in book.cells if 'settings={"epochs": 1}' in cell.source)
    fewer = 'settings={"epochs": 1, "data.train_size": 520, "batch_size": 8}'
    letters.source = letters.source.replace('settings={"epochs": 1}', fewer)
    book.cells.append(nbformat.v4.new_code_cell("print('accuracies', run.history[-1]['validation/accuracy'], right)"))
    where = {"metadata": {"path": str(tmp_path)}}
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    said = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()))
    assert "epoch   8/8" in said
    assert "Traceback" not in said
    _, *accuracies = said.splitlines()[-1].split()
    assert all(float(accuracy) > 0.3 for accuracy in accuracies), "a tenth would be chance"


CELL = """
run = jaxcat.fit("folder:trained", "run", settings={**settings, "epochs": epochs})
print("epochs:", len(run.history))
"""


@pytest.mark.slow
def test_the_stop_button_of_jupyter_saves_and_the_cell_goes_on(tmp_path, monkeypatch):
    """A live kernel: an interrupt while epochs pass ends the cell as Ctrl-C ends the command; the cell continues."""
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    settings = {**TINY, "data.source": "digits", "data.train_size": 100}
    kernel, client = manager.start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    said: list[str] = []

    def run(code: str, *, stop_at: str = "") -> dict:
        """The reply to a cell; it is interrupted when `stop_at` has been printed."""
        text = ""

        def hear(message: dict) -> None:
            nonlocal text
            text += message["content"].get("text", "")
            if stop_at and stop_at in text and not said:
                said.append(text)
                kernel.interrupt_kernel()

        reply = client.execute_interactive(code, timeout=300, output_hook=hear)["content"]
        return {**reply, "text": text}

    try:
        assert run(f"import jaxcat\nsettings = {settings!r}\nepochs = 100000")["status"] == "ok"
        stopped = run(CELL, stop_at="epoch 1/100000")
        assert stopped["ename"] == "KeyboardInterrupt"
        assert stopped["evalue"] == "what is done is saved; the same call of jaxcat.fit continues it"
        (step,) = re.findall(r"interrupted at step (\d+): the same command continues from there", stopped["text"])
        assert run("epochs = 1")["status"] == "ok"
        again = run(CELL)
        assert again["status"] == "ok", again
        assert f"epoch of 13 steps, now at step {step}\n" in again["text"]
        assert "epochs: 1" in again["text"]
        assert "absl" not in again["text"], "a notice of a library"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


# the classifier -------------------------------------------------------------------------------------------------------


def test_a_classifier_is_shown_with_its_classes_blocks_and_step(finished):
    classifier = jaxcat.load(finished)
    assert repr(classifier) == "<jaxcat classifier: 2 classes (disc, square), mixed0 of inception_v3, step 9>"
    classifier.classes = tuple(f"class {number}" for number in range(1000))
    assert "1,000 classes (class 0, class 1, " in repr(classifier)
    assert "class 9, …), mixed0 of" in repr(classifier)


# predict --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 3, 2.5, {"a": 1}, [[1, 2]], object(), True])
def test_what_is_no_image_is_named(finished, wrong):
    classifier = jaxcat.load(finished)
    with pytest.raises(DataError, match=r"^image 1: .* is no image; give the path") as refused:
        classifier.predict([np.zeros((75, 75, 3), np.uint8), wrong])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("single", [None, 3, "cat.jpg", b"bytes", Path("cat.jpg"), np.zeros((75, 75, 3), np.uint8)])
def test_one_image_in_place_of_a_list_is_refused(finished, single):
    with pytest.raises(TypeError, match="list of images"):
        jaxcat.load(finished).predict(single)


def test_every_kind_of_image_is_the_same_image(finished, folder):
    import jax.numpy as jnp

    path = sorted(folder.rglob("*.png"))[0]
    image = Image.open(path)
    pixels = np.asarray(image)
    encoded = path.read_bytes()
    kinds = [path, str(path), encoded, bytearray(encoded), memoryview(encoded), image, pixels, jnp.asarray(pixels)]
    classifier = jaxcat.load(finished)
    rows = classifier.predict(kinds)
    assert (rows == rows[0]).all()
    assert (classifier.predict(np.stack([pixels, pixels])) == classifier.predict([pixels, pixels])).all()


def test_fit_imports_no_framework_to_refuse():
    code = (
        "import jaxcat, sys\n"
        "try: jaxcat.fit('folder', 'run')\n"
        "except Exception as error: assert 'data.dir is empty' in str(error), error\n"
        "else: sys.exit(1)\n"
        "assert not sys.modules.keys() & {'jax', 'flax', 'optax', 'orbax', 'tensorflow'}"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
