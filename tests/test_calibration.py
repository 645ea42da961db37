"""A temperature in calibration.json: what uses it, and which files are refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from scipy.special import expit, logit
from small_export import classifier_of
from test_exact_run import TINY

import jaxcat
from jaxcat import evaluate, predict
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.export.__main__ import main as export
from jaxcat.export.description import description_of
from jaxcat.export.parity import Reference
from jaxcat.inference.classifier import load
from jaxcat.runs.calibration import Calibration, arrays_digest, read_calibration, write_calibration
from jaxcat.runs.meta import Meta, read_meta
from jaxcat.runs.workdir import steps

TEMPERATURE = 2.5
FIGURES = {"loss": 0.5, "calibration_error": 0.1}
TRAINED = {**TINY, "optim.name": "adam", "model.cut": "block3", "model.pool_from": "cut", "model.pool": "avg"}


def calibration_for(meta: Meta, temperature: float = TEMPERATURE) -> Calibration:
    return Calibration(temperature, meta.step, arrays_digest(meta), "xla", "validation", 12, "0" * 64, FIGURES, FIGURES)


@pytest.fixture(scope="module", params=small.slow_except(["xla"], ["xla", "litert_float32"]))
def trained(folder, request, tmp_path_factory) -> Path:
    """A trained head with a hidden layer on bottlenecks of either engine, and a temperature for its best step."""
    settings = TRAINED | {"data.dir": folder, "bottleneck.engine": request.param, "epochs": 3, "model.hidden": 6}
    workdir = jaxcat.fit("folder:trained", tmp_path_factory.mktemp("run"), settings=settings).workdir
    write_calibration(workdir, calibration_for(load(workdir).meta))
    return workdir


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it, to do with as one likes."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def files(folder) -> list[Path]:
    return sorted((folder / "validation").glob("*/*.png"))


def divided(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (N, 2) after a division of their one logit."""
    second = expit(logit(np.float64(probabilities[:, 1])) / TEMPERATURE)
    return np.stack([1 - second, second], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["litert_float32"], indirect=True)
@pytest.mark.parametrize("engine", ["xla", "litert_float32"])
@pytest.mark.parametrize("head_file", [True, False])
def test_both_engines_divide_the_logits(run, files, engine, head_file):
    if not head_file:
        shutil.rmtree(run / "heads")
    plain, calibrated = (load(run, engine=engine, calibrated=each) for each in (False, True))
    expected = divided(plain.predict(files))
    np.testing.assert_allclose(calibrated.predict(files), expected, atol=1e-5)
    assert np.abs(expected - plain.predict(files)).max() > 1e-3
    assert calibrated.calibration.temperature == TEMPERATURE
    hidden = (np.asarray(each.params["hidden"]["kernel"]) for each in (plain, calibrated))
    np.testing.assert_array_equal(*hidden)


def test_evaluate_and_predict_use_it_where_asked(run, files, capsys):
    printed, summaries = [], []
    for flags in ([], ["--calibrated"]):
        assert evaluate.main(["--workdir", str(run), *flags]) == 0
        summaries.append(json.loads((run / "evaluation" / "validation.json").read_text()))
        capsys.readouterr()
        assert predict.main(["--workdir", str(run), *map(str, files), *flags]) == 0
        printed.append([json.loads(line)["probability"] for line in capsys.readouterr().out.splitlines()])
    assert "temperature" not in summaries[0]
    assert summaries[1]["temperature"] == TEMPERATURE
    assert summaries[0]["accuracy"] == summaries[1]["accuracy"]
    assert summaries[0]["loss"] != pytest.approx(summaries[1]["loss"], rel=1e-3)
    assert expit(logit(np.array(printed[0])) / TEMPERATURE) == pytest.approx(printed[1], abs=1e-5)


def test_exports_have_it_and_say_so(run, tmp_path, capsys):
    plain, calibrated = load(run), load(run, calibrated=True)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    expected = Reference(plain).logits(images) / TEMPERATURE  # test_export.py compares every format with this reference
    np.testing.assert_allclose(Reference(calibrated).logits(images), expected, rtol=1e-4, atol=1e-6)
    assert description_of(plain, format="onnx", weights="float32", parity={})["calibration"] is None
    arguments = ["--workdir", str(run), "--format", "stablehlo", "--output", str(tmp_path / "file.stablehlo")]
    assert export([*arguments, "--calibrated"]) == 0
    said = description_of(calibrated, format="onnx", weights="float32", parity={})["calibration"]
    assert said == json.loads((run / "calibration.json").read_text())
    with pytest.raises(ConfigError, match="--calibrated: .* --format canonical holds none"):
        export(
            [
                *("--workdir", str(run), "--format", "canonical", "--output", str(tmp_path / "a.safetensors")),
                "--calibrated",
            ]
        )


def test_several_logits_are_divided():
    plain = classifier_of(classes=("a", "b", "c"))
    calibrated = classifier_of(classes=("a", "b", "c"), temperature=TEMPERATURE)
    images = [np.random.default_rng(i).integers(0, 256, (80, 80, 3), np.uint8) for i in range(3)]
    expected = np.float64(plain.predict(images)) ** (1 / TEMPERATURE)
    np.testing.assert_allclose(calibrated.predict(images), expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_what_is_written_is_read(run):
    meta = load(run).meta
    assert read_calibration(run, meta) == calibration_for(meta)


def test_one_of_another_step_or_network_is_refused_by_name(run):
    meta = load(run).meta
    other = next(step for step in steps(run) if step != meta.step)
    with pytest.raises(CheckpointError, match=rf"calibration.json: is of step {meta.step}, and this is step {other}"):
        load(run, step=other, calibrated=True)
    write_calibration(run, calibration_for(meta)._replace(step=other, arrays=arrays_digest(meta)))
    assert arrays_digest(read_meta(run, other)) != arrays_digest(meta)
    with pytest.raises(CheckpointError, match=rf"calibration.json: was fitted to another network than step {other}"):
        load(run, step=other, calibrated=True)


def changed(**changes):
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, "missing; python -m jaxcat.report"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "cannot be used"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "cannot be used"),
        (lambda path: path.write_text("[" * 60_000), "cannot be used"),
        (lambda path: path.write_text(" " * 70_000), "at most 65,536 bytes"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
        (lambda path: path.write_text("[]"), "no calibration of version 1"),
        (changed(version=2), "no calibration of version 1"),
        (changed(temperature=0.0), "temperature of 0.0 is not from"),
        (changed(temperature=-1.0), "temperature of -1.0 is not from"),
        (changed(temperature=float("inf")), "temperature of inf is not from"),
        (changed(temperature=float("nan")), "temperature of nan is not from"),
        (changed(temperature="2"), "temperature is not a float"),
        (changed(temperature=True), "temperature is not a float"),
        (changed(step=None), "step is not a int"),
        (changed(after={"loss": float("nan"), "calibration_error": 0.0}), "after does not have the figures"),
        (changed(before={"<script>": 1}), "before does not have the figures"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(run, change, said):
    change(run / "calibration.json")
    with pytest.raises(CheckpointError, match=r"calibration\.json: .*" + said):
        load(run, calibrated=True)
    load(run)


@pytest.mark.slow
def test_exact_heads_and_published_weights_have_none(folder, tmp_path, capsys):
    workdir = jaxcat.fit("folder", tmp_path, settings=TINY | {"data.dir": folder, "model.pool_from": "block5"}).workdir
    with pytest.raises(ConfigError, match="--calibrated: the head of this run is solved"):
        load(workdir, calibrated=True)
    with pytest.raises(SystemExit):
        predict.main(["--weights", "x", "--calibrated", "a.png"])
    assert "--calibrated needs --workdir" in capsys.readouterr().err
