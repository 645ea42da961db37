"""The programs of docs/export.md, each in a fresh process in which jaxcat cannot be imported, nor what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import small
from hostile_names import HOSTILE_NAMES
from PIL import Image
from small_export import classifier_of

from jaxcat.export import export
from jaxcat.export.examples import generated

TEXT = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
PROGRAMS = dict(re.findall(r"^## Python, with (.*?)\n.*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
FILES = {
    "ONNX Runtime": ("onnx", "cats.onnx", {"onnxruntime"}),
    "LiteRT": ("litert", "cats.tflite", {"ai_edge_litert"}),
    "TensorFlow": ("savedmodel", "cats", {"tensorflow"}),
    "JAX": ("stablehlo", "cats.stablehlo", {"jax"}),
}
RUNTIMES = {"jaxcat", "jax", "flax", "onnx", "onnxruntime", "ai_edge_litert", "tensorflow", "coremltools"}
BLOCKED = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name)

sys.meta_path.insert(0, Nothing())
"""


def alone(program: str, *, needs: set[str], folder: Path) -> str:
    """What a program prints that can import one runtime only."""
    code = BLOCKED.format(blocked=sorted(RUNTIMES - needs)) + program
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_every_runtime_has_its_program():
    assert PROGRAMS.keys() == FILES.keys()


@pytest.mark.parametrize("runtime", small.slow_except(["ONNX Runtime"], FILES))
def test_a_program_prints_the_answer_of_the_classifier(runtime, tmp_path):
    format, name, needs = FILES[runtime]
    classifier = classifier_of(classes=HOSTILE_NAMES, model__cut="mixed1")
    export(classifier, tmp_path / name, format=format)
    (turned := Image.Exif())[0x0112] = 6  # as a phone that is held upright writes it
    Image.fromarray(generated(1, 120)[0][:90]).save(tmp_path / "cat.jpg", quality=95, exif=turned)
    (wanted,) = classifier.predict([tmp_path / "cat.jpg"])
    label, _, probability = alone(PROGRAMS[runtime], needs=needs, folder=tmp_path).rstrip("\n").rpartition(" ")
    assert label == HOSTILE_NAMES[wanted.argmax()]
    assert float(probability) == pytest.approx(wanted.max(), abs=1e-5)


def test_onnx_takes_one_image_and_twenty(tmp_path):
    classifier = classifier_of()
    export(classifier, tmp_path / "a.onnx", format="onnx")
    session, images = onnxruntime.InferenceSession(tmp_path / "a.onnx"), generated(20, 75)
    (together,) = session.run(["probabilities"], {"image": images})
    one_by_one = [session.run(["probabilities"], {"image": image[None]})[0] for image in images]
    np.testing.assert_allclose(together, np.concatenate(one_by_one), atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate(list(classifier.predict_pixels(images))), atol=1e-5)
