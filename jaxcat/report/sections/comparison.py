"""Other runs on the same images: is one of them better, where do they differ, and what differs in their settings."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcat.config import difference
from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.objectives.paired import Paired, mcnemar
from jaxcat.report.comparing import Other, others_of
from jaxcat.report.context import Context
from jaxcat.report.numbers import percent
from jaxcat.report.origins import PATHS, shown_path
from jaxcat.report.section import Section
from jaxcat.wording import counted, printable

UNLIKELY = 0.05  # a p below it is called a difference


def section_of(context: Context) -> Section | None:
    """None if nothing is to be compared."""
    if not context.compare:
        return None
    others = others_of(context)
    reading = (
        "All runs answered the same images. A small p says that a difference as large as this would be rare if both "
        "were equally good; it says nothing about how large the difference is on other images."
    )
    found = [_correct(context, other) for other in others]
    pairs = [mcnemar(context.correct, each, groups=context.groups, seed=context.seed) for each in found]
    own = printable(shown_path(str(context.workdir)))
    values = {
        "rows": [
            _row(context, own, context.summary, context.correct, None),
            *(
                _row(context, other.name, other.summary, each, pair)
                for other, each, pair in zip(others, found, pairs, strict=True)
            ),
        ],
        "grouped": context.groups is not None,
        "others": [_other(context, *each) for each in zip(others, found, pairs, strict=True)],
        "settings": _settings(context, others),
        "names": [own, *(other.name for other in others)],
    }
    return Section("comparison", "Runs side by side", reading, "comparison.html", values)


def _correct(context: Context, other: Other) -> np.ndarray:
    return other.log_probabilities.argmax(axis=1) == context.labels


def _row(
    context: Context, name: str, summary: dict[str, Any], correct: np.ndarray, pair: Paired | None
) -> dict[str, str]:
    low, high = accuracy_interval(correct, context.groups, seed=context.seed)
    row = {
        "name": name,
        "accuracy": percent(summary["accuracy"], 2),
        "interval": f"{low:.3f} to {high:.3f}",
        "loss": f"{summary['loss']:.4f}",
        "auc": "–" if summary["auc"] is None else f"{summary['auc']:.4f}",
        "calibration": f"{summary['calibration_error']:.4f}",
        "difference": "",
        "only": "",
        "p": "",
    }
    if pair is None:
        return row
    points, ends = -100 * pair.difference, sorted(-100 * end for end in pair.interval)
    return row | {
        "difference": f"{points:+.2f} points ({ends[0]:+.2f} to {ends[1]:+.2f})",
        "only": f"{pair.only_second:,} and {pair.only_first:,}",
        "p": f"{pair.p:.3f}" if pair.p >= 0.001 else "< 0.001",
    }


def _other(context: Context, other: Other, correct: np.ndarray, pair: Paired) -> dict[str, Any]:
    """The verdict on a run, and the images that exactly one of the two runs gets right."""
    differ = np.flatnonzero(context.correct != correct)
    rows = np.arange(len(context))
    chances = np.exp(other.log_probabilities[rows, context.labels]), context.probabilities[rows, context.labels]
    differ = differ[np.argsort(-np.abs(chances[0] - chances[1])[differ], kind="stable")]
    better = "The other run" if pair.only_second > pair.only_first else "This run"
    # Of grouped images p is too small, and the interval, which draws whole groups, decides too.
    low, high = pair.interval
    clear = pair.p < UNLIKELY and (context.groups is None or not low <= 0 <= high)
    sure = f"{better} is better by more than chance explains." if clear else "Chance may explain it."
    verdict = f"One of the two is right and the other wrong on {counted(len(differ), 'image')}. {sure}"
    return {
        "name": other.name,
        "verdict": verdict,
        "notes": other.notes,
        "cards": [_card(context, other, int(number)) for number in differ[: context.top]],
        "more": len(differ) - context.top,
    }


def _card(context: Context, other: Other, number: int) -> dict[str, Any]:
    context.pictures.embed([number])
    row = np.exp(other.log_probabilities[number])
    theirs, ours = int(row.argmax()), int(context.predicted[number])
    return {
        "number": number,
        "label": context.classes[context.labels[number]],
        "file": context.files[number],
        "ours": {"name": context.classes[ours], "probability": f"{context.confidence[number]:.3f}"},
        "theirs": {"name": context.classes[theirs], "probability": f"{row[theirs]:.3f}"},
    }


def _settings(context: Context, others: list[Other]) -> list[dict[str, Any]]:
    """The settings in which the runs differ, of those that may change what a run computes."""
    configs = [context.classifier.config, *(other.meta.config for other in others)]
    names = sorted({name for config in configs[1:] for name in difference(configs[0], config)})
    flat = [config.to_dict() for config in configs]
    return [{"name": name, "values": [_value(name, each) for each in flat]} for name in names]


def _value(name: str, config: dict[str, Any]) -> str:
    """A setting as it is typed."""
    value: Any = config
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, str) and name in PATHS:
        value = shown_path(value)
    return "–" if value in (None, "") else printable(f"{value:g}" if isinstance(value, float) else str(value))
