"""The first section: how good the classifier is, against what, and what it was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.report.context import Context
from jaxcat.report.judged import remarks
from jaxcat.report.numbers import between, percent, short
from jaxcat.report.origins import about, shown_path, train_command
from jaxcat.report.section import Section
from jaxcat.wording import counted

READING = (
    "Accuracy is the share of images that are answered with their label; the interval says where it would lie on very "
    "many images of the same kind, and such intervals are right about 19 times out of 20."
)


class Figure(NamedTuple):
    """A card: what is measured, its value, and a line about it."""

    what: str
    value: str
    more: str = ""
    main: bool = False


def section_of(context: Context) -> Section:
    """The figures that evaluate writes, with an interval for the accuracy."""
    values = {
        "figures": list(_figures(context)),
        "remarks": list(remarks(context)),
        "notes": list(_notes(context)),
        "about": about(context),
        "command": _command(context),
        "exact": {name: context.summary[name] for name in EXACT if name in context.summary},
    }
    return Section("summary", "Summary", READING, "summary.html", values)


# In the page as they are, for programs; the same as in the file of evaluate.
EXACT = ("count", "accuracy", "top_5_accuracy", "loss", "auc", "calibration_error", "step", "engine")


def _figures(context: Context) -> Iterator[Figure]:
    summary, count = context.summary, len(context)
    interval = accuracy_interval(context.correct, context.groups, seed=context.seed)
    right = int(context.correct.sum())
    yield Figure("Accuracy", percent(summary["accuracy"]), f"{between(interval)} · {right:,} of {count:,} right", True)
    if "top_5_accuracy" in summary:
        yield Figure(
            "Among the five best",
            percent(summary["top_5_accuracy"]),
            "images whose label is one of the five most probable",
        )
    entry = context.classifier.meta.history[-1] if context.classifier.meta.history else {}
    if entry.get("leave_one_out/accuracy") is not None:
        low, high = entry["leave_one_out/interval"]
        of = f"{between((low, high))} · {counted(entry['leave_one_out/count'], 'train image')}"
        yield Figure("Leave-one-out on train", percent(entry["leave_one_out/accuracy"]), of)
    most = np.bincount(context.labels, minlength=len(context.classes))
    frequent = [context.classes[label] for label in np.flatnonzero(most == most.max())]
    which = f"the most frequent label: {short(frequent[0])}" if len(frequent) == 1 else "the most frequent labels"
    yield Figure("Always the same answer", percent(most.max() / count), which)
    yield Figure("Guessing", percent(1 / len(context.classes)), counted(len(context.classes), "class", "classes"))
    area = "not defined" if summary["auc"] is None else f"{summary['auc']:.4f}"
    kind = "area under the ROC curve" if len(context.classes) == 2 else "each class against the rest, averaged"
    yield Figure("AUC", area, kind if summary["auc"] is not None else "a class has no image here")
    even = math.log(len(context.classes))
    yield Figure("Log loss", f"{summary['loss']:.4f}", f"nats; {even:.3f} if all classes were equally probable")
    yield Figure(
        "Calibration error", percent(summary["calibration_error"]), "mean distance of probabilities from truth"
    )


def _notes(context: Context) -> Iterator[str]:
    """What to know about the interval and the images."""
    if context.groups is not None:
        groups = len(np.unique(context.groups))
        yield (
            "Images that belong together, or have the same pixels, count as one in the interval: it comes from "
            f"drawing {counted(groups, 'group')} of the {counted(len(context), 'image')} again and again."
        )
    if context.unreadable:
        yield f"{counted(len(context.unreadable), 'image')} could not be read and are left out."


def _command(context: Context) -> list[str]:
    if context.workdir is None:
        return []
    return train_command(context.classifier.meta, shown_path(str(context.workdir)))
