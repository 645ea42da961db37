"""The commands as a user types them: statuses, one-line errors, nothing heavy before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small
from PIL import Image
from processes import command

from jaxcat import flags
from jaxcat.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment, timeout=300
    )


def request(folder: Path | str, workdir: Path, *more: str) -> tuple:
    """The arguments of `jaxcat.train` for a small run."""
    settings = (f"--config.data.dir={folder}", "--config.model.weights=none", "--config.model.width=0.0625")
    settings += ("--config.data.image_size=75", "--config.epochs=1", "--config.model.cut=mixed0")
    return ("--config", "configs/folder.py:trained", "--workdir", workdir, *settings, *more)


WRONG = ["--config", "configs/folder.py", "--workdir", "nowhere", "--config.optim.name=adm"]


@pytest.mark.parametrize(
    ("module", "arguments", "status", "says"),
    [
        ("train", ["--help"], 0, "--workdir"),
        ("check", ["nowhere"], 2, "nowhere: there is no such folder"),
        ("cache", ["list"], 0, "0.0 MB"),
        ("train", WRONG, 2, "--config.optim.name=adm: must be one of"),
        pytest.param("evaluate", ["--help"], 0, "--workdir", marks=pytest.mark.slow),
        pytest.param("predict", ["--help"], 0, "--workdir", marks=pytest.mark.slow),
        pytest.param("cache", ["--help"], 0, "clear", marks=pytest.mark.slow),
        pytest.param("check", ["--help"], 0, "--jobs", marks=pytest.mark.slow),
        pytest.param(
            "train",
            ["--config", "configs/nonesuch.py", "--workdir", "nowhere"],
            2,
            "no such file",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_commands_that_compute_nothing_import_no_framework(module, arguments, status, says, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path))
    code = (
        f"import runpy, sys\nsys.argv = ['{module}', *{arguments}]\n"
        f"try: runpy.run_module('jaxcat.{module}', run_name='__main__')\n"
        f"except SystemExit as end: assert (end.code or 0) == {status}, end.code\n"
        "assert not sys.modules.keys() & {'jax', 'flax', 'optax', 'orbax', 'tensorflow'}"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert says in result.stdout + result.stderr


@pytest.mark.slow
def test_importing_brings_no_tensorflow_and_that_no_keras():
    modules = "jaxcat, jaxcat.train, jaxcat.training.loop, jaxcat.evaluate, jaxcat.inference.evaluation"
    modules += ", jaxcat.predict, jaxcat.inference.prediction"
    program = f"""
import sys, {modules}
slow = ("tensorflow", "keras", "sklearn", "matplotlib")
print([name for name in slow if name in sys.modules])
tf = jaxcat.system.tensorflow_import.import_tensorflow()
print([name for name in slow if name in sys.modules])
import keras, tensorflow.keras.layers
print(keras.layers.Dense is tf.keras.layers.Dense is tensorflow.keras.layers.Dense)
"""
    result = run("-c", "import jaxcat.system.tensorflow_import\n" + program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["[]", "['tensorflow']", "True"]


REQUESTS = [
    (["--config.epochs=many"], ["--config.epochs=many: wants a whole number"]),
    (["--config.optim.learning_rate=nan"], ["--config.optim.learning_rate", "finite"]),
    (["--config.model.train_from=mixed3"], ["--config.model.train_from=mixed3", "--config.model.cut=mixed0"]),
    (["stray"], ["stray"]),
    (
        ["--config.optim.learning_rat=1"],
        ["--config.optim.learning_rat is not", "did you mean optim.learning_rate?"],
    ),
    (
        ["--config.optm.learning_rate=1"],
        ["--config.optm.learning_rate is not", "did you mean optim.learning_rate?"],
    ),
    (["--config.seed.x=1"], ["--config.seed.x is not a setting; did you mean seed?"]),
    (["--config.epochs[0]=1"], ["--config.epochs[0] is not a setting; did you mean epochs?"]),
    (["--noconfig.data.skip_bat"], ["--config.data.skip_bat is not a setting; did you mean data.skip_bad?"]),
    (["--config.optim.learning_rate=fast"], ["--config.optim.learning_rate=fast: wants a number"]),
    (["--config.data.skip_bad=maybe"], ["--config.data.skip_bad=maybe: wants True or False"]),
    (["--config.epochs=0"], ["--config.epochs=0", "at least 1"]),
    (["--config.model.cut=mixed12"], ["--config.model.cut=mixed12", "did you mean mixed10?"]),
]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [*REQUESTS[:4], *(pytest.param(*each, marks=pytest.mark.slow) for each in REQUESTS[4:])],
)
def test_a_wrong_request_is_one_line_and_status_2(tmp_path, arguments, says):
    """Each in a process of its own; test_settings.py and test_config.py have many more requests, without."""
    result = run("-m", "jaxcat.train", *request("images", tmp_path / "run", *arguments))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert all(words in result.stderr for words in says), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(:", "SyntaxError: invalid syntax"),
        ("import nonesuch", "nonesuch"),
        ("x = y", "'y'"),
        ("import os; get_config = lambda: os.nothing", "module 'os' has no attribute 'nothing'"),
        ("get_config = lambda: int('abc')", r"broken.py.*invalid literal for int\(\) with base 10: 'abc'"),
        ("get_config = lambda: [][1]", "IndexError: list index out of range"),
        ("get_config = lambda: open('/nonesuch')", "No such file.*nonesuch"),
        ("get_config = lambda: None", "None"),
    ],
)
def test_a_config_file_that_cannot_be_run(tmp_path, text, says):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=says):
        flags.read_config(str(tmp_path / "broken.py"), [])


def test_a_name_longer_than_a_file_system_takes():
    with pytest.raises(ConfigError, match="init_from=.*aaa.*: File name too long"):
        flags.read_config("configs/folder.py", ["--config.init_from=" + "a" * 300])


@pytest.mark.slow
def test_a_missing_config_file_and_variant(tmp_path):
    for config in ("configs/nonesuch.py", "configs/digits.py:nonesuch"):
        result = run("-m", "jaxcat.train", "--config", config, "--workdir", tmp_path / "run")
        assert result.returncode == 2
        assert "nonesuch" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_orbax_does_not_warn_of_a_complete_workdir(tmp_path):
    folder = small.image_folder(tmp_path / "images")
    for _ in range(2):  # trains, and finds that it has
        status, output = command("jaxcat.train", *request(folder, tmp_path / "run"), logs=tmp_path)
        assert status == 0, output
        assert "_CHECKPOINT_METADATA" not in output


@pytest.mark.slow
def test_bad_images_are_all_listed_before_training(tmp_path):
    folder = small.image_folder(tmp_path / "images")
    for name in ("000", "003"):
        path = folder / "train" / "disc" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:200])
    status, output = command("jaxcat.train", *request(folder, tmp_path / "run"), logs=tmp_path)
    assert status == 2
    assert "000.png" in output
    assert "003.png" in output
    assert "--config.data.skip_bad=True" in output
    skipping = request(folder, tmp_path / "run", "--config.data.skip_bad=True")
    status, output = command("jaxcat.train", *skipping, logs=tmp_path)
    assert status == 0, output
    assert "22 train" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("jaxcat.evaluate", ["--workdir", "nowhere"], "nowhere"),
        ("jaxcat.evaluate", ["--workdir", "configs"], "no finished checkpoint"),
        ("jaxcat.predict", ["--workdir", "configs", "x.jpg"], "no finished checkpoint"),
    ],
)
def test_a_workdir_without_a_run(tmp_path, module, arguments, says):
    status, output = command(module, *arguments, logs=tmp_path)
    assert status == 1
    assert says in output
    assert "Traceback" not in output


def test_a_published_name_with_a_slash_is_no_path():
    name = "timm/inception_v3.tv_in1k"
    config = flags.read_config(str(REPOSITORY / "configs/folder.py"), [f"--config.model.weights={name}"])
    assert config.model.weights == name


def test_messages_of_commands_are_shown_as_errors_are():
    program = (
        "import logging; from jaxcat.system import cli; logging.basicConfig();"
        "cli.run(lambda argv: [logging.getLogger(name).warning('%d left', 2) for name in ('jaxcat.x', 'other')][1])"
    )
    result = run("-c", program)
    assert result.returncode == 0
    assert result.stderr.splitlines() == ["warning: 2 left", "WARNING:other:2 left"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no such device")
def test_output_that_cannot_be_written_and_names_that_would_control_a_terminal(tmp_path):
    folder = small.image_folder(tmp_path / "data", train=1, validation=1)
    cut = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1"  # Pillow warns of it
    Image.new("RGB", (9, 9)).save(folder / "train" / "disc" / "odd.jpg", exif=cut)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jaxcat.check", folder],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: the output cannot be written: No space left on device"
    assert "UserWarning" not in done.stderr
    done = run("-m", "jaxcat.check", tmp_path / "\x1b[31mred\r")
    assert done.stderr == f"error: {tmp_path}/\\x1b[31mred\\r: there is no such folder\n"
