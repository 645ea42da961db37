"""Machines as people have them: commands either work there or say in one line, before any work, what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcat.system import files
from jaxcat.system.console import accept_any_text
from jaxcat.system.files import NoHomeError, cache_dir

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = ("--config.epochs=1", "--config.model.width=0.0625", "--config.model.cut=mixed0", "--config.init_from=")
TINY += ("--config.data.train_size=20", "--config.data.validation_size=20")

# A user without an entry in the system's list of users, and without HOME, as in many containers.
NOBODY = (
    "import os, pwd\n"
    "def missing(*_): raise KeyError('uid not found')\n"
    "pwd.getpwuid = pwd.getpwnam = missing\n"
    "for name in ('HOME', 'USER', 'LOGNAME', 'USERNAME', 'XDG_CACHE_HOME', 'JAXCAT_CACHE'):\n"
    "    os.environ.pop(name, None)\n"
)


def jaxcat(*arguments: str, cwd: Path, before: str = "", **environment: str) -> subprocess.CompletedProcess:
    """`jaxcat ARGUMENTS…` in another process; `before` is code that is run first."""
    code = f"{before}import runpy\nrunpy.run_module('jaxcat', run_name='__main__', alter_sys=True)"
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, cwd=cwd, env=variables, timeout=300
    )


def refused(result: subprocess.CompletedProcess) -> str:
    """The one line of a request that is refused, without those that say what takes long on a busy machine."""
    said = result.stderr.decode()
    assert result.returncode == 2, said
    (line,) = (line for line in said.strip().splitlines() if not line.endswith(" …"))
    return line


@pytest.mark.parametrize(
    ("platform", "command"),
    [
        ("cuda", ("train", "--config", "digits:transfer", "--workdir", "run", *TINY)),
        ("tpu", ("evaluate", "--workdir", "{finished}")),
        ("banana", ("predict", "--workdir", "{finished}", "x.jpg")),
    ],
)
@pytest.mark.slow
def test_a_device_that_is_asked_for_and_not_there(finished, tmp_path, platform, command):
    command = [argument.format(finished=finished) for argument in command]
    said = refused(jaxcat(*command, cwd=tmp_path, JAX_PLATFORMS=platform))
    assert said.startswith(f"error: JAX_PLATFORMS={platform}: ")
    assert "JAX_PLATFORMS=cpu" in said
    assert not list(tmp_path.iterdir()), "nothing is begun"


@pytest.mark.slow
def test_a_whole_run_with_a_notebooks_backend_an_ascii_output_and_no_user(tmp_path):
    environment = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    }
    train = ("train", "--config", "digits:transfer", "--workdir", "läuft 🐈", *TINY)
    for command in (train, ("evaluate", "--workdir", "läuft 🐈")):
        result = jaxcat(*command, cwd=tmp_path, before=NOBODY, **environment)
        assert result.returncode == 0, result.stderr
        assert result.stdout.isascii() or "läuft 🐈".encode() in result.stdout
        assert b"Traceback" not in result.stderr
    assert (tmp_path / "läuft 🐈" / "learning_curve.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["läuft 🐈"], "no folder called ~"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["inline", "nonesuch"])  # and the run above has the third
def test_the_backend_of_a_notebook_is_not_taken_over(tmp_path, backend):
    code = (
        "from pathlib import Path\n"
        "from jaxcat.system import cli\n"
        "def draw(argv):\n"
        "    from jaxcat.training.reporting import learning_curve\n"
        "    names = [f'{split}/{what}' for split in ('train', 'validation') for what in ('loss', 'accuracy')]\n"
        "    learning_curve([{'epoch': 1, **dict.fromkeys(names, 0.5)}], Path('curve.png'))\n"
        "cli.run(draw)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MPLBACKEND": backend}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "curve.png").is_file()


@pytest.mark.slow
def test_without_a_home_directory_work_that_needs_a_cache_says_what_to_set(tmp_path):
    said = refused(jaxcat("cache", "list", cwd=tmp_path, before=NOBODY))
    assert "set JAXCAT_CACHE" in said
    train = ("train", "--config", "folder:trained", "--workdir", "run", "--config.data.dir=images")
    assert "set JAXCAT_CACHE" in refused(jaxcat(*train, cwd=tmp_path, before=NOBODY))
    assert "set HOME" in refused(jaxcat("predict", "--workdir", "~/run", "x", cwd=tmp_path, before=NOBODY))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("answer", ["~/.cache/jaxcat", RuntimeError("could not determine the home directory")])
def test_platformdirs_old_and_new_without_a_home(monkeypatch, answer):
    def user_cache_dir(_: str) -> str:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.delenv("JAXCAT_CACHE")
    monkeypatch.setattr(files.platformdirs, "user_cache_dir", user_cache_dir)
    with pytest.raises(NoHomeError, match="set JAXCAT_CACHE"):
        cache_dir()


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "a × b … ± 40° 🐈 ".encode() + b"\xe9"),
        ("ascii", rb"a x b ... +- 40 degrees \U0001f408 " + b"\xe9"),
        ("latin-1", "a × b ... ± 40° ".encode("latin-1") + rb"\U0001f408 " + b"\xe9"),
    ],
)
def test_every_text_can_be_written(tmp_path, encoding, written):
    with open(tmp_path / "out", "w", encoding=encoding) as stream:
        accept_any_text(stream, None)
        stream.write("a × b … ± 40° 🐈 " + os.fsdecode(b"\xe9"))
    assert (tmp_path / "out").read_bytes() == written


COMMANDS_AND_ENCODINGS = [(name, "ascii") for name in ("train", "evaluate", "predict", "cache")]
COMMANDS_AND_ENCODINGS += [("train", "latin-1"), ("train", "cp1252")]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "encoding"), COMMANDS_AND_ENCODINGS)
def test_help_in_another_encoding(tmp_path, command, encoding):
    result = jaxcat(command, "--help", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert result.returncode == 0, result.stderr
    result.stdout.decode(encoding)
