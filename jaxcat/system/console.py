"""Output of commands: a console that survives a closed pipe, and the progress of long work."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import rich.console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_UNTIL_SAID = 2.0  # work that takes no longer is not mentioned, if the output is not a terminal
SECONDS_BETWEEN_LINES = 10.0  # of progress, if the output is not a terminal
SECONDS_BETWEEN_UPDATES = 0.5  # of a line in a notebook


class Console(rich.console.Console):
    """A rich console that shows every text as it is, without markup or colours; it wraps lines only if for tables."""

    def __init__(self, *, quiet: bool = False, stderr: bool = False, tables: bool = False):
        super().__init__(
            quiet=quiet,
            stderr=stderr,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=not tables,
            force_jupyter=False,  # plain text: rich's HTML needs packages that a notebook may lack
            force_terminal=False if in_notebook() else None,  # a notebook asks for colours, and is no terminal
        )

    def on_broken_pipe(self) -> None:
        """Makes the console silent if the reader, such as `head`, has closed the pipe; rich would end the process."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())  # discards what is buffered and what other code prints
        os.close(nowhere)


class OneLine:
    """A line that is written again and again at the same place, as a notebook can show it."""

    def __init__(self, console: rich.console.Console):
        self._console, self._length = console, 0

    def show(self, text: str) -> None:
        """Replaces the line with `text`; "" removes it."""
        if text or self._length:
            padding = " " * max(0, self._length - len(text))
            self._console.file.write(f"\r{text}{padding}" + ("" if text else "\r"))
            self._console.file.flush()
        self._length = len(text)


def in_notebook() -> bool:
    """Whether the output goes to a notebook, which can overwrite a line and has no other commands of terminals."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


# What jaxcat prints beyond ASCII → the same in ASCII, for terminals and logs of another encoding.
IN_ASCII = {
    **{"×": "x", "…": "...", "→": "->", "±": "+-", "°": " degrees", "–": "-", "·": "*"},
    **dict.fromkeys("━╸╺•─", "-"),
}


def accept_any_text(*streams: Any) -> None:
    """Makes text streams write characters that their encoding lacks in another form, instead of raising an error.

    Undecodable bytes of file names are written as these bytes, known signs in ASCII, and others as escapes.
    """
    codecs.register_error("jaxcat", _replaced)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # not if it is closed or replaced, as in tests and notebooks
            stream.reconfigure(errors="jaxcat")


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return IN_ASCII.get(character) or character.encode("unicode_escape").decode(), error.start + 1


@contextlib.contextmanager
def without_lines(*unwanted: str) -> Iterator[None]:
    """Leaves lines with one of these texts out of what the block writes to standard error, C++ libraries included.

    The other lines appear when the block ends.
    """
    with contextlib.ExitStack() as stack:
        try:
            stderr = os.dup(2)
            stack.callback(os.close, stderr)
            written = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # standard error is closed, or no temporary file can be made: show everything
            yield
            return
        sys.stderr.flush()
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            written.seek(0)
            with contextlib.suppress(OSError):  # the reader of standard error may have gone
                for line in written:
                    if not any(text.encode() in line for text in unwanted):
                        os.write(2, line)


def columns() -> tuple[ProgressColumn, ...]:
    """The columns of a progress bar: what is done, the bar, how many of how many, and the time left."""
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


@contextlib.contextmanager
def said_steps(what: str, *, console: rich.console.Console) -> Iterator[Callable[[str], None]]:
    """Shows what is being done, for work whose steps cannot be counted.

    Yields a function; the block must call it with a few words on its present step. A terminal shows all of them on one
    line that changes; else there is one line, if the work is long.
    """
    if console.is_terminal:
        with console.status(what) as status:
            yield lambda step: status.update(f"{what}: {step}")
    else:
        with said_if_long(what, console=console):
            yield lambda step: None


@contextlib.contextmanager
def said_if_long(what: str, *, console: rich.console.Console) -> Iterator[None]:
    """Prints what is done if the block takes longer than `SECONDS_UNTIL_SAID`; for work without parts to count."""
    timer = threading.Timer(SECONDS_UNTIL_SAID, console.print, (f"{what} …",))
    timer.daemon = True  # never keeps the process alive
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def counting(what: str, *, console: rich.console.Console) -> Iterator[Callable[[int], None]]:
    """Shows on a terminal how many are done while the block runs, for work whose whole is not known.

    Yields a function; the block must call it with the number of items that it has just done. What the block prints on
    standard error stands above the line.
    """
    shown = TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} done"), TimeElapsedColumn()
    terminal = console.is_terminal
    with Progress(*shown, console=console, transient=True, disable=not terminal, redirect_stdout=False) as line:
        task = line.add_task(what, total=None)
        yield lambda count: line.advance(task, count)


@contextlib.contextmanager
def progress_of(what: str, *, total: int, console: rich.console.Console) -> Iterator[Callable[[int], None]]:
    """Shows how many of `total` are done and the time left while the block runs: a bar on a terminal, else lines.

    If there were lines, the last says that all are done. In a notebook it is one line, which changes. Yields a
    function; the block must call it with the number of items that it has just done.
    """
    began = said = time.monotonic()
    done = 0
    line = OneLine(console) if in_notebook() and not console.quiet else None
    pause = SECONDS_BETWEEN_UPDATES if line else SECONDS_UNTIL_SAID
    bar = Progress(*columns(), console=console, transient=True)
    with bar if console.is_terminal else contextlib.nullcontext():  # rich 14 prints an empty line even if disabled
        task = bar.add_task(what, total=total)

        def advance(count: int) -> None:
            nonlocal done, said, pause
            done += count
            bar.advance(task, count)
            now = time.monotonic()
            if not console.is_terminal and done < total and now - said >= pause:
                seconds = (now - began) * (total - done) / done
                left = f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
                (line.show if line else console.print)(f"{what}: {done} of {total}, {left} left")
                said, pause = now, SECONDS_BETWEEN_UPDATES if line else SECONDS_BETWEEN_LINES

        try:
            yield advance
            if said > began and not line and not console.is_terminal and done >= total:
                console.print(f"{what}: {done} of {total}")
        finally:
            if line:
                line.show("")
