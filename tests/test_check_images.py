"""scripts/check_images.py names every image that training would refuse, by the same decoder, and no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import image_folder

REPOSITORY = Path(__file__).resolve().parent.parent


def check(*arguments: object) -> subprocess.CompletedProcess:
    """Runs the script from the root of the repository, as README says."""
    return subprocess.run(
        [sys.executable, "scripts/check_images.py", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    return image_folder(tmp_path / "data", train=3, validation=2)


def test_good_images(folder):
    (folder / "train" / "notes.txt").write_text("x")
    done = check(folder, "--jobs", 2)
    assert done.returncode == 0
    assert done.stdout.decode() == "10 images, 0 unreadable; 1 other file ignored\n"
    assert not done.stderr


def test_every_bad_image_is_named_in_order(folder):
    bad = [folder / "train/disc/001.png", folder / "train/square/000.png", folder / "validation/disc/001.png"]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(bad[1].read_bytes()[:-500])
    bad[2].write_bytes(b"<html>")
    os.rename(folder / "train/square/002.png", os.fsencode(folder) + b"/train/square/caf\xe9.png")
    done = check(folder)
    assert done.returncode == 1
    *lines, summary = done.stdout.decode().splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in bad]
    for line, reason in zip(lines, ("empty", "truncated", "HTML"), strict=True):
        assert reason in line
    assert summary == "10 images, 3 unreadable; 0 other files ignored"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["empty"], "empty: no images"),
        (["empty", "--jobs", 0], "--jobs 0"),
    ],
)
def test_requests_that_cannot_work(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    done = check(tmp_path / arguments[0], *arguments[1:])
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not done.stdout
