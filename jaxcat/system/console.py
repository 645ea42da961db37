"""Where commands print: a console that outlives its reader, and how far long work has come."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0  # of progress, where the output is not a terminal


class Console(rich.console.Console):
    """rich's console without its colours for numbers; it breaks no line, unless it is for tables."""

    def __init__(self, *, quiet: bool = False, stderr: bool = False, tables: bool = False):
        super().__init__(quiet=quiet, stderr=stderr, highlight=False, soft_wrap=not tables)

    def on_broken_pipe(self) -> None:
        """The reader, such as `head`, has seen enough: the work goes on in silence. (rich would end the process.)"""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())  # what is still in its buffer, and what others print
        os.close(nowhere)


@contextlib.contextmanager
def progress_of(what: str, *, total: int, console: rich.console.Console) -> Iterator[Callable[[int], None]]:
    """Show `what` with the number done of `total` and the time that is left, until the end of the block: a bar on a
    terminal, else a line now and then.

    Gives a function to be told how many more are done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = said = time.monotonic()
    done = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            bar.advance(task, count)
            now = time.monotonic()
            if not console.is_terminal and done < total and now - said >= SECONDS_BETWEEN_LINES:
                minutes = (now - began) * (total - done) / done / 60
                console.print(f"{what}: {done} of {total}, {minutes:.0f} min left")
                said = now

        yield advance
