"""Learning from corrections: the exact head is solved again, and the person decides which run the page uses.

The new run lies beside the old one, in DIR-corrected, DIR-corrected-2, …; the old one does not change. It has the same
settings, with `data.corrections`, and the same frozen blocks, so that the cache has the rows of all images but the new
ones. Only the penalty is chosen again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxcat import flags
from jaxcat.data import corrections as tables
from jaxcat.data.images.decoding import read_file
from jaxcat.errors import JaxcatError, one_line
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.own_records import listed_records
from jaxcat.runs.meta import Meta, best_epoch
from jaxcat.serve.answers import Limits, received
from jaxcat.serve.corrections import Corrections, digest_of
from jaxcat.serve.refused import Refused
from jaxcat.training.optim import is_exact
from jaxcat.wording import counted, printable

NEEDS_EXACT = (
    "Learning in seconds needs an exact head, one that is solved; the head of this run was trained in steps. The "
    "corrections are kept all the same: train again with --config.data.corrections=TABLE, or solve a head with "
    "--config.optim.name=exact and serve that run."
)
ESTIMATES = ("leave_one_out", "validation")


class Run:
    """A run that the page can use.

    Attributes:
        workdir: of the run.
        classifier: opened from it.
        notes: sentences about how it was made.
    """

    def __init__(self, workdir: Path, classifier: Classifier, notes: tuple[str, ...] = ()):
        self.workdir, self.classifier, self.notes = workdir, classifier, notes

    @property
    def name(self) -> str:
        return printable(self.workdir.name)

    def described(self) -> dict[str, Any]:
        """Name, notes and accuracies, plain JSON."""
        return {"name": self.name, "notes": list(self.notes), **accuracies(self.classifier.meta)}


def accuracies(meta: Meta) -> dict[str, Any]:
    """What the run knows of its accuracy: for each of `ESTIMATES` accuracy, interval and number of images, or None."""
    best = best_epoch([entry for entry in meta.history if entry["step"] == meta.step]) or best_epoch(meta.history) or {}
    return {
        name: None
        if best.get(f"{name}/accuracy") is None
        else {key: best.get(f"{name}/{key}") for key in ("accuracy", "interval", "count")}
        for name in ESTIMATES
    }


class Learning:
    """The runs of one server, and the thread that makes new ones. The page asks again and again for `described()`.

    Attributes:
        used: the run whose answers the page shows.
    """

    def __init__(self, first: Run, corrections: Corrections, *, open_run: Callable[[Path], Classifier]):
        """Args:
        first: the run that the server was started with; every new one is made from its settings.
        corrections: what is learned from.
        open_run: opens a new run as the first one was opened.
        """
        self.used, self._first, self._corrections, self._open = first, first, corrections, open_run
        self._runs = {first.name: first}
        self._problem, self._thread = "", threading.Thread()
        self._one = threading.Lock()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def described(self) -> dict[str, Any]:
        """Plain JSON: the runs, which one is used, and what is being done."""
        return {
            "runs": [run.described() | {"used": run is self.used} for run in list(self._runs.values())],
            "learning": {
                "running": self.running,
                "impossible": "" if is_exact(self._first.classifier.config) else NEEDS_EXACT,
                "problem": self._problem,
            },
        }

    def use(self, name: str) -> None:
        """Chooses the run that the page uses. Raises Refused if there is none of this name."""
        if name not in self._runs:
            raise Refused(404, "there is no such run")
        self.used = self._runs[name]
        print(f"used from here on: {self.used.workdir}", flush=True)

    def start(self) -> None:
        """Begins to make a new run.

        Raises:
            Refused: the head was trained, there is nothing to learn from, or it is being done already.
        """
        with self._one:
            if not is_exact(self._first.classifier.config):
                raise Refused(409, NEEDS_EXACT)
            if self.running:
                raise Refused(409, "it is being done already")
            if not self._corrections.labels():
                raise Refused(409, "there is no correction to learn from")
            self._problem = ""
            self._thread = threading.Thread(target=self._learn, name="learn")
            self._thread.start()

    def join(self) -> None:
        """Waits until nothing is being made."""
        if self.running:
            self._thread.join()

    def _learn(self) -> None:
        """Makes a run; an error becomes `problem`, whose details, which may name paths, are on standard error only."""
        workdir = None
        try:
            workdir = new_folder(self._first.workdir)
            run = self._solved(workdir)
        except Exception as error:
            self._problem = "The head could not be solved; the window of the server says why."
            print(f"error: {error if isinstance(error, JaxcatError) else one_line(error)}", file=sys.stderr, flush=True)
            if isinstance(error, Refused):
                self._problem = str(error)
            if workdir is not None:
                shutil.rmtree(workdir, ignore_errors=True)
            return
        self._runs[run.name] = run

    def _solved(self, workdir: Path) -> Run:
        from jaxcat.training import loop

        adopt(self._first.classifier, self._corrections)
        config = again(self._first.classifier.meta, self._first.workdir, table=self._corrections.table)
        flags.validate(config)
        count = len(self._corrections.labels())  # more may be kept while the head is solved
        with _Warnings(tables.__name__) as warnings:
            if loop.train(config, workdir):
                raise Refused(409, "it was interrupted")
        classifier = self._open(workdir)
        notes = [counted(count, "correction")]
        notes += [text.removeprefix(f"{tables.where(config)}: ") for text in warnings.texts]
        if _validation(self._first.classifier, self._first.workdir) != _validation(classifier, workdir):
            notes.append("validation has other images than before, so these accuracies cannot be compared")
        return Run(workdir, classifier, tuple(notes))


def again(meta: Meta, workdir: Path, *, table: Path) -> ConfigDict:
    """The settings of a new run from those of the run in `workdir`, with the corrections in a table."""
    config = meta.asked.copy_and_resolve_references()
    config.data.corrections, config.init_from = str(table.absolute()), str(workdir.absolute())
    config.optim.penalty = 0.0  # chosen anew
    return config


def adopt(classifier: Classifier, corrections: Corrections) -> None:
    """Also keeps the corrections that the run was made with, from a table elsewhere; replaces no newer label."""
    config = classifier.config
    if not config.data.corrections or Path(config.data.corrections) == corrections.table.absolute():
        return
    known = {name.partition(".")[0] for name in corrections.labels()}
    for row in tables.rows_of(config):
        content = read_file(row.path)
        if digest_of(content) not in known:
            found = received(content, config=config, limits=Limits(most_pixels=config.data.max_pixels))
            corrections.keep(found.content, found.form, row.label)


def new_folder(workdir: Path) -> Path:
    """Makes the first of DIR-corrected, DIR-corrected-2, … that does not exist; no two processes get the same one."""
    for number in itertools.count(1):
        path = workdir.with_name(f"{workdir.name}-corrected{f'-{number}' if number > 1 else ''}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            break
    return path


def _validation(classifier: Classifier, workdir: Path) -> Any:
    """What identifies the images of validation."""
    listed = listed_records(workdir, classifier.meta) or {}
    return listed["validation"].digests if "validation" in listed else None


class _Warnings(logging.Handler):
    """Collects what a logger warns of while a block runs."""

    def __init__(self, name: str):
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._logger = logging.getLogger(name)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> _Warnings:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
