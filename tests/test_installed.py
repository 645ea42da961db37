"""jaxcat installed without its repository: the recipes come along, and the console script does what the modules do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jaxcat import configs
from jaxcat.__main__ import COMMANDS

REPOSITORY = Path(__file__).resolve().parent.parent


def python(*arguments: str, path: Path = REPOSITORY, cwd: Path | None = None) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd, timeout=300
    )


# commands -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_the_commands_are_listed_and_no_framework_is_imported(arguments):
    code = (
        f"import runpy, sys\nsys.argv = ['jaxcat', *{arguments}]\n"
        "try: runpy.run_module('jaxcat', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not sys.modules.keys() & {'jax', 'flax', 'optax', 'orbax', 'tensorflow', 'numpy'}"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    for name, meaning in COMMANDS.items():
        assert f"  {name}" in result.stdout
        assert meaning in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_its_module(name):
    if importlib.util.find_spec(f"jaxcat.{name}") is None:
        pytest.skip(f"jaxcat.{name} is not written yet")
    by_command, by_module = python("-m", "jaxcat", name, "--help"), python("-m", f"jaxcat.{name}", "--help")
    assert by_command.returncode == by_module.returncode == 0, by_command.stderr
    assert by_command.stdout == by_module.stdout
    wrong = ["--nonesuch"]
    by_command, by_module = python("-m", "jaxcat", name, *wrong), python("-m", f"jaxcat.{name}", *wrong)
    assert by_command.returncode == by_module.returncode == 2
    assert by_command.stderr == by_module.stderr


def test_an_unknown_command_is_one_line():
    result = python("-m", "jaxcat", "evalute")
    assert result.returncode == 2
    assert result.stderr.strip().endswith("did you mean evaluate?")
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_version():
    assert python("-m", "jaxcat", "--version").stdout.startswith("jaxcat ")


# a wheel --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The unpacked wheel. Building it needs hatchling: an installed one, or one from a package index."""
    place = tmp_path_factory.mktemp("wheel")
    options = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    built = python("-m", "pip", "wheel", "--no-deps", "-q", *options, "-w", str(place), str(REPOSITORY))
    assert built.returncode == 0, built.stderr
    (wheel,) = place.glob("jaxcat-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


@pytest.mark.slow
def test_a_wheel_has_the_recipes_and_the_console_script(installed):
    recipes = {path.stem for path in (installed / "jaxcat" / "configs").glob("[a-z]*.py")}
    assert recipes == set(configs.shipped()) == {path.stem for path in (REPOSITORY / "configs").glob("*.py")}
    (scripts,) = installed.glob("jaxcat-*.dist-info/entry_points.txt")
    assert "jaxcat = jaxcat.__main__:console" in scripts.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "some"),
    [
        ("export/web", {"page.html", "style.css", "main.js", "onnxruntime_licence.txt"}),
        ("browser", {"shared.css", "camera.js"}),
    ],
)
def test_a_wheel_has_the_files_of_web_pages(installed, folder, some):
    kept, found = ({path.name for path in (root / "jaxcat" / folder).glob("*.*")} for root in (REPOSITORY, installed))
    assert found == kept
    assert some <= found


@pytest.mark.slow
def test_a_wheel_has_the_templates_of_the_report(installed):
    kept, found = (
        {path.name for path in (root / "jaxcat" / "report" / "templates").iterdir()} for root in (REPOSITORY, installed)
    )
    assert found == kept
    assert {"page.html", "parts.html", "report.css", "report.js"} <= found


@pytest.mark.slow
def test_a_wheel_works_from_another_directory(installed, tmp_path, as_users_have_it):
    (tmp_path / "folder").mkdir()  # a folder of that name beside it changes nothing
    code = "import jaxcat; from jaxcat.configs.cats_vs_dogs import get_config; print(jaxcat.__file__)"
    assert python("-c", code, path=installed, cwd=tmp_path).stdout.strip() == str(installed / "jaxcat" / "__init__.py")
    wrong = ["-m", "jaxcat", "train", "--config", "folder:trained", "--workdir", "run"]
    result = python(*wrong, path=installed, cwd=tmp_path)
    assert (result.returncode, "data.dir is empty" in result.stderr) == (2, True), result.stderr
    result = python(*wrong[:4], "configs/folder.py", *wrong[5:], path=installed, cwd=tmp_path)
    assert "the shipped recipe of that name is --config folder" in result.stderr

    script = "from jaxcat.__main__ import console; console()"
    tiny = ["--config.epochs=1", "--config.model.width=0.0625", "--config.model.cut=mixed0", "--config.init_from="]
    tiny += ["--config.data.train_size=20", "--config.data.validation_size=20"]
    command = ["-c", script, "train", "--config", "digits:transfer", "--workdir", "run", *tiny]
    result = python(*command, path=installed, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
    result = python("-c", script, "evaluate", "--workdir", "run", path=installed, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
