"""What commands print, and that they go on when nobody reads it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import pytest
import rich.console

from jaxcat.system import console
from jaxcat.system.console import progress_of


@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_gets_a_line_now_and_then_and_a_terminal_a_bar(monkeypatch, terminal):
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 30.0)
    shown = rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=100, get_time=lambda: now)
    with progress_of("images", total=100, console=shown) as advance:
        for _ in range(10):
            now += 20.0
            advance(10)
    lines = shown.file.getvalue().splitlines()
    if terminal:
        assert "\x1b" in shown.file.getvalue()
    else:
        assert lines == [
            "images: 10 of 100, 3 min left",
            "images: 30 of 100, 2 min left",
            "images: 50 of 100, 2 min left",
            "images: 70 of 100, 1 min left",
            "images: 90 of 100, 20 s left",
            "images: 100 of 100",
        ]


def test_a_log_gets_no_line_about_work_of_a_moment(monkeypatch):
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    shown = rich.console.Console(file=io.StringIO(), force_terminal=False, width=100)
    with progress_of("images", total=100, console=shown) as advance:
        for _ in range(100):
            now += 0.03
            advance(1)
    assert shown.file.getvalue() == "images: 67 of 100, 1 s left\nimages: 100 of 100\n"
    shown.file.truncate(0)
    with progress_of("images", total=100, console=shown) as advance:
        for _ in range(100):
            now += 0.01
            advance(1)
    assert shown.file.getvalue() == ""


def test_work_without_parts_is_named_if_it_takes_long(monkeypatch):
    shown = rich.console.Console(file=io.StringIO(), force_terminal=False, width=100)
    with console.said_if_long("reading", console=shown):
        pass
    assert shown.file.getvalue() == ""
    monkeypatch.setattr(console, "SECONDS_UNTIL_SAID", 0.01)
    printed = threading.Event()
    monkeypatch.setattr(shown, "print", lambda text: (shown.file.write(text), printed.set()))
    with console.said_if_long("reading", console=shown):
        assert printed.wait(timeout=30)
    assert shown.file.getvalue() == "reading …"


def test_work_goes_on_when_the_reader_has_seen_enough(tmp_path):
    """`python -m jaxcat.train … | head -1`: rich would end the process, with status 1 and no message."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from jaxcat.system.console import Console\n"
        "console = Console()\n"
        "for number in range(20_000): console.print(f'line {number} of many')\n"
        "print('by other means')\n"
        "Path(sys.argv[1]).touch()\n"
    )
    done = tmp_path / "done"
    with subprocess.Popen(
        [sys.executable, "-c", code, done], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "line 0 of many\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 0, process.stderr.read()
        assert process.stderr.read() == ""
    assert done.exists()


def test_unwanted_lines_are_left_out_and_others_stay(capfd):
    with console.without_lines("a notice"):
        os.write(2, b"I0000 a notice of a library\nan error that matters\n")
    assert capfd.readouterr().err == "an error that matters\n"


def test_nothing_is_left_out_if_no_temporary_file_can_be_made(capfd, monkeypatch):
    def refused():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(console.tempfile, "TemporaryFile", refused)
    with console.without_lines("a notice"):
        os.write(2, b"a notice\n")
    assert capfd.readouterr().err == "a notice\n"
