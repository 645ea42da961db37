"""Makes a report: opens the classifier and its images, measures, and writes the page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcat.bottlenecks.cached import CachedSplit
from jaxcat.data.pixel_groups import groups_of, remember
from jaxcat.data.records import Split
from jaxcat.data.store import Store
from jaxcat.errors import ConfigError
from jaxcat.inference import own_records
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.evaluation import evaluate, name_of, open_split, open_store, summary_of
from jaxcat.inference.explanation import block_to_explain
from jaxcat.inference.run_flags import open_published, open_run
from jaxcat.report.calibrating import calibrate, check_calibrate
from jaxcat.report.comparing import check_compared
from jaxcat.report.contents import SECTIONS
from jaxcat.report.context import Context
from jaxcat.report.page import check_output, write
from jaxcat.report.pictures import Pictures
from jaxcat.runs.meta import Meta
from jaxcat.runs.records import Listed
from jaxcat.system.console import Console, said_if_long, said_steps

TEST, VALIDATION = "test", "validation"
MOST_FEATURES = 2**31  # bytes of the features of all records
FOLDER = "report"  # in the workdir


class Request(NamedTuple):
    """What was asked for; see `report.report`."""

    workdir: Path | None
    weights: str = ""
    split: str = ""
    data: Path | None = None
    moved: Path | None = None
    top: int = 24
    compare: tuple[Path, ...] = ()
    output: Path | None = None
    step: str | int = "best"
    engine: str = "auto"
    calibrated: bool = False
    calibrate: bool = False
    block: str = ""

    def check(self) -> None:
        """Raises ConfigError for combinations that mean nothing."""
        if (self.workdir is None) == (not self.weights):
            raise ConfigError("a report is of a run (--workdir DIR) or of published weights (--weights NAME): give one")
        if self.weights and (self.data is None or self.output is None):
            raise ConfigError(
                f"--weights {self.weights}: published weights have no images and no directory of their own: give "
                "--data DIR2, with a folder for each class, and --output DIR3"
            )
        if self.weights and self.compare:
            raise ConfigError("--compare is for runs, and --weights is none: leave one of them out")
        if self.weights and (self.calibrate or self.calibrated):
            raise ConfigError(
                "--calibrate and --calibrated are for trained heads, and --weights has none: leave it out"
            )
        if self.data is not None and self.moved is not None:
            raise ConfigError("--data measures on other images, --moved-data on the run's own: give one of them")
        if self.data is not None and self.split:
            raise ConfigError(f"--split {self.split} is of the run's own data; --data takes all images: give one")
        if self.top < 1:
            raise ConfigError(f"--top {self.top}: must be at least 1")


def make(request: Request, *, console: Console | None = None) -> Path:
    """Makes the report and returns the path of its page.

    Raises:
        JaxcatError: see `report.report`.
    """
    request.check()
    console = console or Console(quiet=True)
    folder = check_output(request.output or (request.workdir or Path()) / FOLDER)
    context = context_of(request, console=console)
    if request.calibrate:
        calibrate(context)
    sections = []
    with said_steps("report", console=console) as say:
        for section_of in SECTIONS:
            say(section_of.__module__.rpartition(".")[2])
            if (section := section_of(context)) is not None:
                sections.append(section)
    return write(folder, context, sections)


def context_of(request: Request, *, console: Console) -> Context:
    """Opens what the request names and measures it."""
    if request.workdir is None:
        classifier = open_published(request.weights, console=console)
    else:
        classifier = open_run(
            request.workdir,
            step=request.step,
            engine=request.engine,
            calibrated=request.calibrated,
            console=console,
        )
    block_to_explain(classifier.config.model, request.block, named="--block ")
    if request.calibrate:
        check_calibrate(classifier, request.split)
    listed = None
    if request.workdir is not None:
        listed = own_records.listed_records(request.workdir, classifier.meta)
    with said_if_long("looking through the data", console=console):
        split = _split(request, classifier, listed)
    if request.compare:
        check_compared(
            request.compare,
            workdir=request.workdir,
            classes=classifier.classes,
            listed=listed if request.data is None else None,
            split=split.name,
        )
    return measured(classifier, split, request, listed=listed, console=console)


def measured(
    classifier: Classifier,
    split: Split,
    request: Request,
    *,
    listed: dict[str, Listed] | None = None,
    console: Console | None = None,
) -> Context:
    """Measures a classifier on a split; of the request, only what the sections are told is used."""
    console = console or Console(quiet=True)
    pictures = Pictures(split)
    store = open_store(classifier, pictures.watched(), console=console)
    own = request.data is None
    if request.workdir is not None:
        _warn(store, listed, own=own, meta=classifier.meta)
    log_probabilities, features = _answers(classifier, store, console=console)
    pictures.settle(store.split, console=console)
    return Context(
        classifier=classifier,
        workdir=request.workdir,
        name=split.name if request.data is None else name_of(request.data),
        split=store.split,
        own=own,
        digests=tuple(store.digests),
        listed=listed,
        groups=_groups(store, pictures, console),
        log_probabilities=log_probabilities,
        summary=summary_of(classifier, log_probabilities, store.split.labels),
        unreadable=store.unreadable if isinstance(store, Store) else (),
        pictures=pictures,
        data=request.data,
        moved=request.moved,
        step=request.step,
        engine=request.engine,
        calibrated=request.calibrated,
        calibrate=request.calibrate,
        block=block_to_explain(classifier.config.model, request.block, named="--block "),
        compare=request.compare,
        top=request.top,
        given_features=features,
        console=console,
    )


def _split(request: Request, classifier: Classifier, listed: dict[str, Listed] | None) -> Split:
    """The records to measure on; without a name, test if the run has it, else validation."""
    name = request.split

    def found(name: str) -> Split:
        return open_split(classifier, split=name, data=request.data, moved=request.moved, listed=listed)

    if request.data is None and not name:
        if listed is not None:
            name = TEST if TEST in listed and not request.calibrate else VALIDATION
        else:
            name = VALIDATION
            with contextlib.suppress(ConfigError):
                if not request.calibrate:
                    return found(TEST)
    return found(name or VALIDATION)


def _warn(store: Store | CachedSplit, listed: dict[str, Listed] | None, *, own: bool, meta: Meta) -> None:
    """Warns as evaluate does."""
    if own and listed:
        own_records.warn_of_changes(store, listed)
    if not own or (listed and store.split.name == TEST):
        own_records.warn_of_known(store, listed, meta=meta)


def _groups(store: Store | CachedSplit, pictures: Pictures, console: Console) -> np.ndarray | None:
    """The groups of the records; None if each record is alone."""
    remember(store.split, store.digests, pictures.pixels())
    groups = groups_of(store.split, store.digests, console=console)
    return groups if len(np.unique(groups)) < len(groups) else None


def _answers(
    classifier: Classifier, store: Store | CachedSplit, *, console: Console
) -> tuple[np.ndarray, Callable[[], np.ndarray | None]]:
    """Log-probabilities float64 (N, classes), and what gives the features, float32 (N, F), or None if too many.

    Pooled features in the cache are read when they are asked for; others come from the pass that gives the answers.
    """
    width = classifier.engine.computation(len(store), console=console).features
    if len(store) * width * 4 > MOST_FEATURES:
        return evaluate(classifier, store, console=console), lambda: None
    if isinstance(store, CachedSplit) and store.parts.shape == (width,):
        return evaluate(classifier, store, console=console), lambda: _read(store, width)
    rows: list[np.ndarray] = []
    log_probabilities = evaluate(classifier, store, console=console, features=rows)
    return log_probabilities, lambda: np.concatenate(rows)


def _read(store: CachedSplit, width: int) -> np.ndarray:
    rows = np.empty((len(store), width), store.parts.dtype)
    store.reader()(np.arange(len(store)), rows)
    return rows.astype(np.float32, copy=False)
