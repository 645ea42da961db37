"""`--compare`: other runs, measured on the images of the report, and whether that is fair."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcat.data.images.decoding import decoding_of
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.inference.classifier import load
from jaxcat.inference.evaluation import evaluate, open_store, summarize
from jaxcat.inference.own_records import listed_records
from jaxcat.report.context import Context
from jaxcat.report.origins import shown_path
from jaxcat.runs.choice import choose, existing
from jaxcat.runs.meta import Meta, read_meta
from jaxcat.runs.records import Listed
from jaxcat.training.optim import is_exact
from jaxcat.wording import counted, printable

TRAIN, VALIDATION = "train", "validation"


class Other(NamedTuple):
    """Another run on the records of a report.

    Attributes:
        name: its workdir as the page shows it; printable.
        meta: of its best step.
        log_probabilities: float64 (N, classes), in the order of the report's classes.
        summary: its figures, as evaluate has them.
        notes: what limits the comparison.
    """

    name: str
    meta: Meta
    log_probabilities: np.ndarray
    summary: dict[str, Any]
    notes: tuple[str, ...]


def check_compared(
    compare: Sequence[Path],
    *,
    workdir: Path | None,
    classes: Sequence[str],
    listed: Mapping[str, Listed] | None,
    split: str,
) -> None:
    """Checks, before anything is measured, that other runs can be compared on these images.

    Args:
        compare: their workdirs.
        workdir: of this run.
        classes: of this run.
        listed: the records of this run, by split, if it has listed them and they will be measured.
        split: which of them will be.

    Raises:
        CheckpointError: there is no run in one of them.
        ConfigError: it is this run, has other classes, or was trained on some of the images, and this run was not.
    """
    known = listed[split].digests if listed and split in listed else ()
    # A copy of an image of train, in the data of both runs, favours neither of them; a note says that it is there.
    both = frozenset(listed[TRAIN].digests) if listed and split != TRAIN else frozenset()
    for path in compare:
        try:
            folder = existing(path)
            meta = read_meta(folder, choose(folder, "best"))
        except CheckpointError as error:
            text = str(error).removeprefix(f"--workdir {path}: ").removeprefix(f"--workdir {path.absolute()}: ")
            raise CheckpointError(f"--compare {path}: {text}") from error
        if workdir is not None and folder.samefile(workdir):
            raise ConfigError(f"--compare {path}: is the run of --workdir itself")
        if set(meta.classes) != set(classes):
            theirs, ours = (", ".join(map(printable, names[:10])) for names in (meta.classes, classes))
            raise ConfigError(f"--compare {path}: has other classes ({theirs}) than this run ({ours})")
        if seen := _trained_on([each for each in known if each not in both], listed_records(folder, meta)):
            raise ConfigError(
                f"--compare {path}: was trained on {seen:,} of the {counted(len(known), 'image')} that are measured, "
                "so the comparison would not be fair: compare runs with the same division of the same data, or measure "
                "both on other images with --data DIR2"
            )


def _trained_on(digests: Sequence[bytes | None], listed: Mapping[str, Listed] | None) -> int:
    """How many of the images with these digests a run was trained on, as far as it has listed its records."""
    train = frozenset(listed[TRAIN].digests) if listed else frozenset()
    return sum(digest is not None and digest in train for digest in digests)


def others_of(context: Context) -> list[Other]:
    """Measures the runs that the report compares, with their own sizes, engines and heads.

    Raises:
        JaxcatError: a run cannot be read, or an image not be decoded as it asks for.
    """
    return [_measured(context, path) for path in context.compare]


def _measured(context: Context, path: Path) -> Other:
    classifier = load(path, keep_compiled=True)
    split = dataclasses.replace(context.split, decoding=decoding_of(classifier.config))
    store = open_store(classifier, split, console=context.console)
    if store.split.files != context.split.files:
        raise ConfigError(f"--compare {path}: cannot read all of the images; leave it out")
    columns = [classifier.classes.index(name) for name in context.classifier.classes]
    log_probabilities = evaluate(classifier, store, console=context.console)[:, columns]
    listed = listed_records(existing(path), classifier.meta)
    return Other(
        name=printable(shown_path(str(path))),
        meta=classifier.meta,
        log_probabilities=log_probabilities,
        summary=summarize(log_probabilities, context.labels, context.classifier.classes),
        notes=tuple(_notes(context, classifier.meta, listed)),
    )


def _notes(context: Context, meta: Meta, listed: Mapping[str, Listed] | None) -> Iterator[str]:
    if context.calibrated:
        yield "Only the probabilities of the report's run are calibrated (--calibrated)."
    if listed is None:
        yield "It has no list of its images, so it is not known whether it was trained on some of these."
    elif seen := _trained_on(context.digests, listed):
        yield f"It was trained on {counted(seen, 'image')} of these, so its figures look better than they are."
    elif context.own and context.split.name in listed:
        theirs = frozenset(listed[context.split.name].digests)
        if new := sum(digest not in theirs for digest in context.digests):
            yield f"Its own {context.split.name} split does not have {counted(new, 'image')} of these."
    if context.own and context.split.name == VALIDATION and not is_exact(meta.asked):
        yield "Its step was chosen by the validation images of its own run."
