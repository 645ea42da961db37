"""The first section: how good the classifier is, against what, and what it was trained on."""

from __future__ import annotations

import numpy as np

from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.report.context import Context
from jaxcat.report.numbers import percent
from jaxcat.report.section import Section
from jaxcat.wording import counted


def section_of(context: Context) -> Section:
    """The figures that evaluate writes, with an interval for the accuracy."""
    summary = context.summary
    low, high = accuracy_interval(context.correct, context.groups, seed=context.seed)
    figures = [
        {"value": percent(summary["accuracy"], 2), "what": "Accuracy", "more": f"95 % interval {low:.3f} to {high:.3f}"}
    ]
    best = np.bincount(context.labels).max() / len(context)
    sentences = [f"Chance {1 / len(context.classes):.3f}; the most frequent class alone {best:.3f}."]
    return Section(
        "summary",
        "Summary",
        f"Measured on {counted(len(context), 'image')} of {context.name}.",
        "summary.html",
        {"figures": figures, "notes": [], "sentences": sentences, "about": [], "command": ""},
    )
