"""The README's commands do what it says: those for one's own images here, on few of them; the two scripts run in CI."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import command as run_command

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text()
SCRIPTS = ("scripts/quickstart.sh", "scripts/test.sh")
OWN_IMAGES = tuple(f"jaxcat.{name}" for name in ("check", "train", "evaluate", "report", "predict", "study", "export"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Every line of the bash blocks, with its comment."""
    return [line.strip() for line in "\n".join(blocks("bash")).splitlines() if line.strip()]


def of_own_images() -> list[list[str]]:
    """The commands of the section of that name, as words without `python` and `-m`."""
    section = README.split("## Your own images")[1].split("```bash\n")[1].split("```")[0]
    return [[word for word in shlex.split(line, comments=True)[1:] if word != "-m"] for line in section.splitlines()]


def test_every_command_is_run_by_ci_or_says_what_it_needs():
    assert len(commands()) >= 10
    for line in commands():
        words = shlex.split(line, comments=True)
        run_here = len(words) > 1 and words[0] == "bash" and words[1] in SCRIPTS
        run_here |= [word for word in words[1:] if word != "-m"] in of_own_images()
        assert run_here or "# needs" in line, line
    ci = (REPOSITORY / ".ci" / "run").read_text()
    assert all(script in ci and (REPOSITORY / script).is_file() for script in SCRIPTS)


@pytest.mark.slow
def test_the_commands_for_ones_own_images_run(shared, tmp_path):
    images = tmp_path / "images"
    for name in ("cats", "dogs"):
        (images / name).mkdir(parents=True)
        for file in sorted((shared / "data/cats_vs_dogs/train" / name).iterdir())[:10]:
            shutil.copy(file, images / name)
    places = {name: str(tmp_path / name) for name in ("runs/mine", "studies/mine", "mine.tflite")}
    values = {"DIR": str(images), "IMAGE_OR_DIRECTORY": str(images / "cats"), **places}
    weights = shared / "weights/inception_v3_nsfw_notop.h5"
    more = [f"--config.model.weights={weights}", "--config.data.image_size=150"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert tuple(words[0] for words in of_own_images()) == OWN_IMAGES
    for command, *words in of_own_images():
        arguments = [word.replace("=DIR", f"={images}") if "=" in word else values.get(word, word) for word in words]
        arguments += more if command in ("jaxcat.train", "jaxcat.study") else []
        status, output = run_command(command, *arguments, logs=tmp_path / "logs")
        assert status == 0, output
        assert command != "jaxcat.predict" or output.count("cats/") == 10, "a row for each image"
    assert Path(places["mine.tflite"]).is_file()

    (snippet,) = blocks("python")
    shutil.copy(next((images / "cats").iterdir()), tmp_path / "cat.jpg")
    snippet += "\nprint(probabilities.shape, classifier.classes)"
    ran = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ran.stdout.startswith("(1, "), ran.stderr
