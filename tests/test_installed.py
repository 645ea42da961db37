"""jaxcat installed without its repository: the recipes come along, and the console script does what the modules do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jaxcat import configs, extras
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


# What a module says to words as a command: its exit status, standard output and standard error.
SAYS = """
import contextlib, io, runpy, sys
def says(module, *words):
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    sys.argv = [module, *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return end.code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()
"""


def test_every_command_is_its_module():
    """All of them in one process: 36 would take ten seconds."""
    code = SAYS + (
        "requests = [(name, flag) for name in sys.argv[1:] for flag in ('--help', '--nonesuch')]\n"
        "by_module = [says(f'jaxcat.{name}', flag) for name, flag in requests]\n"
        "by_command = [says('jaxcat', name, flag) for name, flag in requests]\n"
        "for (name, flag), module, command in zip(requests, by_module, by_command):\n"
        "    assert command == module, (name, flag, command, module)\n"
        "    assert command[0] == (0 if flag == '--help' else 2), (name, flag, command)\n"
        "    assert f'jaxcat.{name}' in ''.join(command[1:]), (name, flag, command)\n"
    )
    result = python("-c", code, *COMMANDS)
    assert result.returncode == 0, result.stderr


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


def test_the_command_for_an_extra_is_that_of_readme_in_a_clone_and_else_names_the_package(tmp_path, monkeypatch):
    documented = extras.install("export").replace("'", '"')
    assert documented.partition("[")[0] in (REPOSITORY / "README.md").read_text()
    monkeypatch.setattr(extras, "_ROOT", tmp_path)
    assert extras.install("export") == "pip install 'jaxcat[export]'"
