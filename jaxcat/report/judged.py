"""By which images a run was judged while it was made: whether the figures of a page are of images that chose it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxcat.inference.own_records import part_of_validation
from jaxcat.report.context import Context
from jaxcat.runs.meta import is_validated
from jaxcat.runs.records import changed_images
from jaxcat.training.optim import is_exact
from jaxcat.wording import counted


def remarks(context: Context) -> Iterator[str]:
    """Sentences on what makes the figures others than those of the run's images, or better than they are."""
    yield from _changed(context)
    if context.own and context.name == "train":
        yield "These are the images that the classifier was trained on: new images will be answered worse."
    elif context.own and context.name == "validation":
        yield from _chosen(context)
    if not context.own or context.name == "test":
        yield from _known(context)


def _changed(context: Context) -> Iterator[str]:
    """What has happened to the run's own images since it began; evaluate warns of it."""
    own = (context.listed or {}).get(context.split.name) if context.own else None
    if own is None:
        return
    if number := len(changed_images(context.split, context.digests, own)):
        yield f"{number:,} of the {counted(len(context), 'image')} have other content than when the run began."
    readable = {file for file, digest in zip(own.files, own.digests, strict=True) if digest}
    missing = len(readable - set(context.split.files)) - len(context.unreadable)
    if missing > 0:
        yield f"{counted(missing, 'image')} of {context.name} that the run had when it began could not be found."


def _chosen(context: Context) -> Iterator[str]:
    """What the validation images have chosen; leave-one-out on train, which chooses for exact heads, is not theirs."""
    config, history = context.classifier.meta.asked, context.history
    if is_exact(config) or not history:
        return
    choices = []
    if str(context.step) == "best" and sum(map(is_validated, history)) > 1:
        choices.append(f"the best of {counted(len(history), 'epoch')}")
    if config.stop.patience or (config.stop.accuracy and config.stop.on == "validation"):
        choices.append("when to stop")
    if choices:
        yield (
            f"These images chose {' and '.join(choices)}: the accuracy is a little too high. Measure images that had "
            "no part in the choice, such as a test split."
        )


def _known(context: Context) -> Iterator[str]:
    """Images of train or validation among those measured, by their bytes."""
    known: set[bytes | None] = {None}
    by_content = {
        "train": "are images that the run was trained on: the figures look better than they are.",
        "validation": f"are validation images of the run, {part_of_validation(context.classifier.meta)}.",
    }
    for name, text in by_content.items():
        of_split = set(context.listed[name].digests if context.listed and name in context.listed else ()) - known
        number = int(np.sum([digest in of_split for digest in context.digests]))
        known |= of_split
        if number:
            yield f"{number:,} of the {counted(len(context), 'image')} {text}"
