"""Exported files: every head and option in every format gives jaxcat's probabilities; what is refused; what is left.

The network in a web page is a file of the format `onnx`; test_export_web.py has the rest of the page.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import mil_numpy
import numpy as np
import onnx
import pytest
import small
from hostile_names import HOSTILE_NAMES
from small_export import classifier_of

from jaxcat.errors import ConfigError, DataError, ExportError
from jaxcat.export import export
from jaxcat.export.__main__ import main
from jaxcat.export.examples import examples_of, generated
from jaxcat.export.formats import FLOAT32, FORMATS
from jaxcat.export.in_jax import logits_of
from jaxcat.export.network import ExportedNetwork, exported
from jaxcat.export.parity import Expected, Reference, spread
from jaxcat.extras import install
from jaxcat.inference.classifier import Classifier, load, probabilities
from jaxcat.models.backbone import BACKBONES, Top
from jaxcat.models.plan import Arrays
from jaxcat.models.preprocessing import BGR_MINUS_MEANS, Conventions, Preprocessing
from jaxcat.system.console import Console
from jaxcat.train import train

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
COUNTED, BGR = Conventions(pool_counts_padding=True), Conventions(BGR_MINUS_MEANS)
FIVE = ("a", "b", "c", "d", "e")
TOP = Top(pool="flatten", hidden={"fc1": 7, "fc2": 5}, image_size=None, classes=9)
VGG = {"model__backbone": "vgg19", "data__image_size": 66}

VARIANTS = {
    "one logit": ({}, {}),
    "many classes, deviations, blocks": (
        {"model__pool": "avg_std", "model__pool_from": "stem", "model__cut": "mixed1"},
        {"classes": FIVE},
    ),
    "hidden, largest, grid, calibrated": (
        {"model__hidden": 6, "model__pool": "max", "model__pool_grid": 2, "model__cut": "mixed3"},
        {"conventions": Conventions(IMAGENET), "temperature": 2.5},
    ),
    "flattened, BGR": ({"model__pool": "flatten", "model__cut": "mixed1"}, {"conventions": BGR, "classes": FIVE}),
    "to the end, padding counted, grid of 3, odd width": (
        {
            "model__cut": "mixed10",
            "model__pool_from": "mixed5",
            "model__pool": "avg_std",
            "model__pool_grid": 3,
            "model__width": 1 / 11,
            "data__image_size": 150,
        },
        {"conventions": COUNTED},
    ),
    "trained blocks, bfloat16": (
        {"model__cut": "mixed1", "model__train_from": "mixed1", "model__dtype": "bfloat16", "model__dropout": 0.5},
        {},
    ),
    "VGG": ({**VGG, "model__cut": "block4", "model__pool": "avg_std", "model__pool_from": "block3"}, {}),
}


class Computed(NamedTuple):
    """What is exported of a classifier, images, and its logits for them."""

    network: ExportedNetwork
    images: np.ndarray
    logits: np.ndarray


@pytest.mark.parametrize("variant", small.slow_except(["one logit"], VARIANTS))
@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("canonical", "web")])
def test_every_head_and_option_gives_the_same_probabilities(variant, format, tmp_path):
    compared(in_jax(variant), format, tmp_path)


@functools.cache
def in_jax(variant: str) -> Computed:
    """The same for all formats."""
    settings, others = VARIANTS[variant]
    return computed(classifier_of(**others, **settings))


@pytest.mark.parametrize("format", small.slow_except(["onnx"], ["onnx", "savedmodel"]))
def test_published_classification_layers(format, tmp_path, monkeypatch):
    with_top = dataclasses.replace(BACKBONES["vgg19"], top=TOP)
    monkeypatch.setitem(BACKBONES, "vgg19", with_top)
    classifier = classifier_of(published=True, classes=tuple("abcdefghi"), **VGG, model__cut="block5")
    compared(computed(classifier), format, tmp_path)


def computed(classifier: Classifier) -> Computed:
    network = exported(classifier)
    images = generated(6, network.image_size)
    return Computed(network, images, Reference(classifier).logits(images))


def compared(of: Computed, format: str, folder: Path) -> None:
    """Writes a file and runs it, without the rest of an export."""
    network, images, expected = of
    writer, path = FORMATS[format].writer(), folder / f"file{FORMATS[format].suffix}"
    writer.write(path, network, weights=FLOAT32)
    if format == "coreml":
        found = mil_numpy.computed(path, images)
        logits, answers = found["logits"], found["probabilities"]
    else:
        run = writer.opened(path, network)
        logits, answers = run(images)
        one, _ = run(images[:1])
        np.testing.assert_allclose(one, logits[:1], atol=1e-4 * spread(expected))
    assert spread(expected) > 0.01
    assert np.abs(logits - expected).max() <= 1e-4 * spread(expected)
    np.testing.assert_allclose(answers, probabilities(logits), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize("format", [name for name, row in FORMATS.items() if len(row.weights) > 1 and name != "web"])
def test_smaller_weights_change_little(format, weights, tmp_path):
    classifier = classifier_of(model__cut="mixed1", model__pool="avg_std", model__width=1 / 4)
    network, writer = exported(classifier), FORMATS[format].writer()
    paths = {kind: tmp_path / f"{kind}{FORMATS[format].suffix}" for kind in (FLOAT32, weights)}
    for kind, path in paths.items():
        writer.write(path, network, weights=kind)
    images = generated(6, network.image_size)
    expected = Reference(classifier).logits(images)
    if format == "coreml":
        logits = mil_numpy.computed(paths[weights], images)["logits"]
    else:
        logits, _ = writer.opened(paths[weights], network)(images)
    error = np.abs(logits - expected).max() / spread(expected)
    assert 1e-5 < error < {"float16": 0.02, "int8": 1.0}[weights]
    if weights == "int8" and format != "litert":  # which rounds its inputs too
        exact = logits_of(network.plan, with_rounded_kernels(network), images)
        error = np.abs(logits - exact).max() / spread(expected)
        assert error <= {"onnx": 1e-4, "coreml": 0.02}[format]  # Core ML's scales and biases are float16
    smaller, larger = sizes(paths)
    assert smaller < {"float16": 0.7, "int8": 0.5}[weights] * larger


def with_rounded_kernels(network: ExportedNetwork) -> dict[str, Arrays]:
    """The arrays, with the kernels of convolutions that 8 bits stand for; the scale is that of the largest value."""
    arrays = dict(network.arrays)
    for name, (kernel, bias) in arrays.items():
        if kernel.ndim == 4:
            scale = np.abs(kernel).max(axis=(0, 1, 2)) / 127
            arrays[name] = Arrays(np.round(kernel / scale) * scale, bias)
    return arrays


def sizes(paths: dict[str, Path]) -> list[int]:
    """Bytes of files or folders, the smallest first."""
    return sorted(sum(f.stat().st_size for f in [path, *path.rglob("*")] if f.is_file()) for path in paths.values())


# the command and its checks -------------------------------------------------------------------------------------------


def described(path: Path, format: str) -> dict:
    """The description in a file, read as other programs read it."""
    if format in ("litert", "stablehlo"):
        return json.loads(zipfile.ZipFile(path).read("jaxcat.json"))
    if format == "onnx":
        return json.loads({each.key: each.value for each in onnx.load(path).metadata_props}["jaxcat"])
    if format == "coreml":
        return json.loads(mil_numpy.spec_of(path).description.metadata.userDefined["jaxcat.json"])
    if format == "savedmodel":
        return json.loads((path / "1" / "assets.extra" / "jaxcat.json").read_text())
    header = path.read_bytes()
    return json.loads(json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]["jaxcat.json"])


@pytest.mark.parametrize("format", small.slow_except(["onnx", "litert"], [name for name in FORMATS if name != "web"]))
def test_a_file_describes_itself_whatever_the_classes_are_called(format, tmp_path):
    cut = {"model__cut": "mixed10"} if format == "canonical" else {}
    classifier = classifier_of(classes=HOSTILE_NAMES, **cut)
    path = tmp_path / f"hostile{FORMATS[format].suffix}"
    returned = export(classifier, path, format=format)
    found = described(path, format)
    assert found == returned
    assert tuple(found["classes"]) == HOSTILE_NAMES
    assert found["image"]["size"] == 75
    assert found["image"]["resize"] == "squash"
    assert found["preprocessing"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert found["provenance"] == {"source": "scratch"}
    assert {"licence", "attribution", "step", "versions"} <= found.keys()
    if format != "coreml":
        assert found["parity"]["images"] >= 32
        assert found["parity"]["probability"] <= 1e-4
    content = b"".join(file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file())
    assert str(Path(__file__).parent.parent).encode() not in content
    if format == "litert":
        lines = zipfile.ZipFile(path).read("labels.txt").decode().split("\n")
        assert len(lines) == len(HOSTILE_NAMES) + 1
        assert lines[3] == HOSTILE_NAMES[3]
    if format == "coreml":
        spec = mil_numpy.spec_of(path)
        assert spec.specificationVersion == 7  # iOS 16
        assert spec.description.predictedFeatureName == "label"
        (image,) = spec.description.input
        assert (image.type.imageType.width, image.type.imageType.height) == (75, 75)
        classify = next(op for op in mil_numpy.program_of(path).operations if op.op_type == "classify")
        assert tuple(classify.inputs["classes"].val) == HOSTILE_NAMES


def test_coreml_refuses_a_name_that_is_no_text(tmp_path):
    with pytest.raises(ConfigError, match=r"\\udc80"):
        export(classifier_of(classes=("a\udc80", "b")), tmp_path / "a.mlpackage", format="coreml")
    assert not list(tmp_path.iterdir())
    export(classifier_of(classes=("a\udc80", "b")), tmp_path / "a.onnx", format="onnx")


def test_canonical_refuses_a_part_of_a_backbone(tmp_path):
    with pytest.raises(ConfigError, match=r"mixed1, .*init_from"):
        export(classifier_of(), tmp_path / "a.safetensors", format="canonical")
    assert not list(tmp_path.iterdir())


def test_without_validation_answers_on_generated_images_count(tmp_path, monkeypatch):
    classifier = classifier_of()
    network = exported(classifier)
    kernel, bias = network.arrays["logits"]
    network.arrays["logits"] = Arrays(-kernel, -bias)
    monkeypatch.setattr("jaxcat.export.network.exported", lambda _: network)
    with pytest.raises(ExportError, match=r"have changed.*--accept.*on generated images differ"):
        export(classifier, tmp_path / "a.onnx", format="onnx", weights="int8")
    assert not list(tmp_path.iterdir())
    found = export(classifier, tmp_path / "a.onnx", format="onnx", weights="int8", accept=True)
    assert found["parity"]["changed"][0]["of"] == "generated images"


def test_a_file_that_is_not_exact_is_not_left(tmp_path, monkeypatch):
    classifier = classifier_of()
    network = exported(classifier)
    kernel, bias = network.arrays["logits"]
    network.arrays["logits"] = type(network.arrays["logits"])(kernel, bias + 1e-3)
    monkeypatch.setattr("jaxcat.export.network.exported", lambda _: network)
    with pytest.raises(ExportError, match=r"above 1e-04.*largest difference of a probability"):
        export(classifier, tmp_path / "a.onnx", format="onnx", accept=True)
    assert not list(tmp_path.iterdir())


def test_saturated_probabilities_do_not_hide_wrong_logits(tmp_path, monkeypatch):
    classifier = classifier_of()
    classifier.trained["params"]["logits"]["bias"] += 50.0
    network = exported(classifier)
    kernel, bias = network.arrays["logits"]
    network.arrays["logits"] = type(network.arrays["logits"])(kernel * 1.01, bias)
    monkeypatch.setattr("jaxcat.export.network.exported", lambda _: network)
    with pytest.raises(ExportError, match="above 1e-04"):
        export(classifier, tmp_path / "a.onnx", format="onnx")


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": "onxx"}, "did you mean onnx"),
    ({"weights": "int8", "format": "savedmodel"}, "--weights int8: .*must be one of float32"),
    ({"path": "a.tflite"}, "NAME.onnx"),
    ({"format": "web", "path": "page.html"}, "for one file add --single-file"),
    ({"path": "missing/a.onnx"}, "there is no folder"),
    ({"path": "there.onnx"}, "is there already"),
    ({"path": "\0a.onnx"}, "--output .*zero byte"),
])  # fmt: skip
def test_requests_that_cannot_be_done(changes, message, tmp_path):
    (tmp_path / "there.onnx").touch()
    wanted = {"format": "onnx", "weights": "float32", "path": "a.onnx"} | changes
    with pytest.raises(ConfigError, match=message):
        export(classifier_of(), tmp_path / wanted.pop("path"), **wanted)


@pytest.mark.parametrize(
    ("format", "module", "extra"), [("onnx", "onnx", "export"), ("coreml", "coremltools", "coreml")]
)
def test_a_missing_package_is_one_line(format, module, extra, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else found(name))
    arguments = ["--workdir", str(tmp_path), "--format", format, "--output", str(tmp_path / "a")]
    with pytest.raises(ConfigError, match=f"needs {module}: {re.escape(install(extra))}$"):
        main(arguments)


def test_an_error_of_a_writer_is_one_that_names_the_file(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no space\nleft")

    monkeypatch.setattr("onnx.save", fails)
    with pytest.raises(ExportError, match=r"a.onnx: cannot be written: RuntimeError: no space left$"):
        export(classifier_of(), tmp_path / "a.onnx", format="onnx")
    assert not list(tmp_path.iterdir())


def test_without_its_runtime_a_file_is_written_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcat.export.writers.onnx_file.installed_versions", lambda *_: {})
    found = export(classifier_of(), tmp_path / "a.onnx", format="onnx")
    assert found["parity"] == {"not_compared": "not compared with jaxcat: onnxruntime is not here"}


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    export(classifier_of(), "~/a.onnx", format="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.slow
def test_comparing_reports_to_nobody(tmp_path):
    """ONNX Runtime's file of what it reports is not there."""
    code = (
        "import sys; from pathlib import Path; from jaxcat.export.writers.onnx_file import opened; "
        "print(opened(Path(sys.argv[1]), None))"
    )
    export(classifier_of(), tmp_path / "a.onnx", format="onnx")
    (tmp_path / "scratch").mkdir()
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.onnx")],
        env=clean | {"TMPDIR": str(tmp_path / "scratch")},
        check=True,
    )
    assert not list((tmp_path / "scratch").iterdir())


def test_help_and_wrong_formats_import_no_framework():
    code = (
        "import sys; from jaxcat.export.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'jax', 'tensorflow', 'onnx', 'coremltools'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("[]\n")
    assert all(name in run.stdout for name in FORMATS)


# a run ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The workdir of a run of one epoch."""
    root = tmp_path_factory.mktemp("export")
    return small.one_epoch(small.image_folder(root / "images", validation=20), root / "run")


def test_the_command_compares_on_validation(run, tmp_path, capsys):
    assert main(["--workdir", str(run), "--format", "onnx", "--output", str(tmp_path / "a.onnx")]) == 0
    output = capsys.readouterr()
    assert "40 images of validation" in output.err
    assert output.out == f"written: {tmp_path / 'a.onnx'}\n"
    found = described(tmp_path / "a.onnx", "onnx")
    assert found["parity"]["generated"] == 0
    assert found["step"] == load(run).step


def test_a_folder_that_is_moved_before_the_first_answer_is_named(run):
    classifier, images = load(run), run.parent / "images"
    expected = Expected(classifier, examples_of(classifier), console=Console())
    assert expected.examples.generated == 0
    images.rename(run.parent / "moved")
    try:
        with pytest.raises(DataError, match=f"^{images}: none of 40 validation images could be read: put back"):
            _ = expected.answers
        assert examples_of(classifier).validation is None
    finally:
        (run.parent / "moved").rename(images)


def test_images_that_go_between_the_answers_of_jaxcat_and_those_of_the_file_are_missed(run):
    classifier = load(run)
    expected = Expected(classifier, examples_of(classifier), console=Console())
    assert len(expected.answers) == 40
    gone = expected.examples.validation.stored(0)
    gone.rename(run.parent / "gone")
    try:
        with pytest.raises(DataError, match="39 validation images could be read for the answers of the file, 40 for x"):
            expected.changed(lambda images: np.zeros((len(images), 2)))
    finally:
        (run.parent / "gone").rename(gone)


@pytest.mark.slow
def test_half_precision_counts_changed_answers(run, tmp_path, monkeypatch):
    found = export(load(run), tmp_path / "a.tflite", format="litert", weights="float16")
    (changed,) = found["parity"]["changed"]
    assert (changed["engine"], changed["images"]) == ("xla", 40)
    assert 1e-7 < found["parity"]["probability"] < 0.01
    monkeypatch.setattr("jaxcat.export.parity.MOST_CHANGED", {"float16": -1.0, "int8": -1.0})
    with pytest.raises(ExportError, match="--accept"):
        export(load(run), tmp_path / "b.onnx", format="onnx", weights="float16")
    assert not (tmp_path / "b.onnx").exists()
    export(load(run), tmp_path / "b.onnx", format="onnx", weights="float16", accept=True)
    assert (tmp_path / "b.onnx").stat().st_size < 0.7 * (tmp_path / "a.tflite").stat().st_size + 10**5


@pytest.mark.slow
def test_a_run_of_the_int8_engine_keeps_its_own_prefix(tmp_path):
    """Its exported file gives the answers of the run itself; against XLA, 8 bits change them."""
    config = small.tiny_config(small.image_folder(tmp_path / "images", train=20, validation=30))
    config.update_from_flattened_dict({
        "bottleneck.engine": "litert_int8", "bottleneck.views": 1, "bottleneck.dtype": "float32", "model.width": 1 / 4,
        "model.pool_from": "stem", "model.pool": "avg_std", "optim.name": "exact", "epochs": 1,
    })  # fmt: skip
    assert train(config, tmp_path / "run") == 0
    classifier = load(tmp_path / "run", engine="litert_int8")
    path = tmp_path / "a.tflite"
    found = export(classifier, path, format="litert", weights="int8", accept=True)
    assert [each["engine"] for each in found["parity"]["changed"]] == ["xla", "litert_int8"]
    assert found["parity"]["changed"][1]["answers"] == 0
    assert found["engine"] == "litert_int8"
    images = generated(8, 75)
    logits, _ = FORMATS["litert"].writer().opened(path, exported(classifier))(images)
    ((own, _),) = classifier.engine.computation().outputs(iter(images), batch_size=8, features=False)
    np.testing.assert_allclose(logits, own, atol=1e-5 * np.abs(own).max())
    assert np.abs(own - Reference(classifier).logits(images)).max() > 100 * np.abs(own - logits).max()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_export_even_where_a_library_catches_everything(number, tmp_path):
    program = """
import os, sys, tempfile
from pathlib import Path
from jaxcat.export.__main__ import _nothing_left
from jaxcat.system.console import Console
from jaxcat.system.files import placing
with _nothing_left(Console(stderr=True)), placing(Path(sys.argv[1], "model")) as aside:
    aside.mkdir()
    (aside / "part").touch()
    tempfile.mkdtemp()
    try:
        os.kill(os.getpid(), int(sys.argv[2]))
    except BaseException:
        pass
"""
    command = [sys.executable, "-c", program, str(tmp_path), str(int(number))]
    assert subprocess.run(command, env=os.environ | {"TMPDIR": str(tmp_path)}, check=False).returncode == 128 + number
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_terminated_export_leaves_nothing(run, tmp_path):
    command = [sys.executable, "-m", "jaxcat.export", "--workdir", run, "--format", "savedmodel", "--output"]
    process = subprocess.Popen([*map(str, command), str(tmp_path / "model")], stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert not list(tmp_path.iterdir())
