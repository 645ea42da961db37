"""Can its probabilities be trusted: reliability, temperature, and what refusing unsure answers brings."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxcat.errors import ConfigError
from jaxcat.inference.calibrated import check_calibratable
from jaxcat.objectives.coverage import by_coverage, refusing
from jaxcat.objectives.reliability import BINS, Reliability, reliability
from jaxcat.objectives.temperature import FOLDS, Temperature
from jaxcat.report.calibrating import LEAST, temperature_of
from jaxcat.report.context import Context
from jaxcat.report.numbers import percent
from jaxcat.report.plots import Colours, Plot, svg
from jaxcat.report.section import Section
from jaxcat.wording import counted

REFUSED = (0.01, 0.05, 0.1, 0.2, 0.5)  # shares in the table
MOST_REFUSED = 0.6  # share that the plot goes up to
POINTS = 400  # of the plotted curve
SMALL = 0.002  # nats of log loss: a temperature that gains less is not worth a file


def section_of(context: Context) -> Section:
    found = reliability(context.confidence, context.correct, groups=context.groups, seed=context.seed)
    refusals = [refusing(context.confidence, context.correct, share=share) for share in REFUSED]
    accuracy = context.summary["accuracy"]
    values = {
        "sentences": [_error(found, context), *_temperature(context)],
        "diagram": _diagram(found),
        "bins": [_bin(found, int(number)) for number in np.flatnonzero(found.counts)],
        "coverage": _coverage(context),
        "refusals": [
            {
                "share": percent(share, 0),
                "refused": f"{each.refused:,}",
                "threshold": f"{each.threshold:.3f}",
                "before": percent(accuracy, 2),
                "after": percent(each.accuracy, 2),
                "answered": f"{each.answered:,}",
            }
            for share, each in zip(REFUSED, refusals, strict=True)
            if each.refused
        ],
    }
    reading = (
        "If its probabilities can be trusted, about 80 % of the answers that it gives with a probability of 0.8 are "
        "right: the bars reach the diagonal."
    )
    return Section("trust", "Can its probabilities be trusted?", reading, "trust.html", values)


def _error(found: Reliability, context: Context) -> str:
    low, high = found.interval
    mean, accuracy = float(context.confidence.mean()), context.summary["accuracy"]
    way = "too sure" if mean > accuracy else "not sure enough"
    verdict = (
        f"On the whole it is {way}: it gives its answers {mean:.3f} on average, and {accuracy:.3f} of them are right."
    )
    if low == 0:
        verdict = "Chance alone explains it: no error of the probabilities is to be seen with so many images."
    return (
        f"Calibration error {found.error:.4f} (95 % interval {low:.4f} to {high:.4f}): by so much confidence and "
        f"accuracy differ on average. Exact probabilities would show about {found.by_chance:.4f} with "
        f"{counted(len(context), 'image')}. {verdict}"
    )


def _temperature(context: Context) -> list[str]:
    classifier = context.classifier
    if classifier.calibration:
        temperature = classifier.calibration.temperature
        return [f"All figures of this page are with --calibrated: the logits were divided by {temperature:.3f}."]
    try:
        check_calibratable(classifier.meta, "")
    except ConfigError:
        return [
            "The head was solved, not trained: the scale of its logits was fitted to training images that were left "
            "out one by one, so there is no temperature to fit."
        ]
    if context.own and context.split.name == "train":
        return ["No temperature is fitted to these images, which the head was trained on."]
    if len(context) < LEAST:
        return [f"There are too few images to fit a temperature; {LEAST} are needed."]
    return _fitted(temperature_of(context), context)


def _fitted(found: Temperature, context: Context) -> list[str]:
    if not found.found:
        return ["No temperature fits: every answer is right, or the logits say nothing about these classes."]
    figures = (
        f"log loss {found.loss_before:.4f} → {found.loss_after:.4f}, calibration error {found.error_before:.4f} → "
        f"{found.error_after:.4f}, measured on images that the temperature was not fitted to ({FOLDS} folds)"
    )
    helps = found.loss_before - found.loss_after >= SMALL
    if not helps:
        lines = [f"A temperature would hardly help: the best, {found.temperature:.2f}, gives {figures}."]
    else:
        lines = [f"Dividing the logits by a temperature of {found.temperature:.2f} helps: {figures}. Answers stay."]
    if context.calibrate:
        lines.append("calibration.json has it now: predict, evaluate, report and export use it with --calibrated.")
    elif context.workdir is not None and helps:
        lines.append(
            "The same command with --calibrate fits it to validation and writes it to calibration.json; predict, "
            "evaluate, report and export then use it with --calibrated."
        )
    return lines


def _bin(found: Reliability, number: int) -> dict[str, Any]:
    low, high = found.intervals[number]
    return {
        "edges": f"{found.edges[number]:.2f} to {found.edges[number + 1]:.2f}",
        "count": f"{found.counts[number]:,}",
        "confidence": f"{found.confidence[number]:.3f}",
        "accuracy": f"{found.accuracy[number]:.3f}",
        "interval": f"{low:.3f} to {high:.3f}",
    }


def _diagram(found: Reliability) -> Plot:
    filled = np.flatnonzero(found.counts)
    middles, width = (found.edges[:-1] + found.edges[1:]) / 2, 0.9 / BINS

    def draw(figure: Figure, colours: Colours) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=colours.soft, linestyle="--", label="exact probabilities")
        upper.bar(middles[filled], found.accuracy[filled], width, color=colours.first, alpha=0.75, label="accuracy")
        errors = np.abs(found.intervals[filled].T - found.accuracy[filled])
        upper.errorbar(
            middles[filled],
            found.accuracy[filled],
            yerr=errors,
            fmt="none",
            ecolor=colours.text,
            elinewidth=1,
            label="95 % interval",
        )
        means = found.confidence[filled], found.accuracy[filled]
        upper.scatter(*means, color=colours.second, marker="D", s=14, zorder=3)
        upper.set_ylabel("share of right answers")
        upper.set_ylim(0, 1.02)
        upper.legend(loc="upper left")
        lower.bar(middles, found.counts, width, color=colours.soft)
        lower.set_ylabel("images")
        lower.set_xlabel("probability of the answer")
        lower.set_xlim(0, 1)

    fullest = int(found.counts.argmax())
    alt = (
        f"Reliability diagram. Most answers, {found.counts[fullest]:,}, have a probability from "
        f"{found.edges[fullest]:.2f} to {found.edges[fullest + 1]:.2f}, {found.confidence[fullest]:.3f} on average; "
        f"{found.accuracy[fullest]:.3f} of them are right. The table below has every bin."
    )
    return svg(draw, alt=alt, width=5.6, height=4.6)


def _coverage(context: Context) -> Plot:
    found = by_coverage(context.confidence, context.correct)
    kept = found.shares >= 1 - MOST_REFUSED
    refused, accuracies = 1 - found.shares[kept], found.accuracies[kept]
    some = np.unique(np.linspace(0, len(refused) - 1, min(POINTS, len(refused))).astype(int))

    def draw(figure: Figure, colours: Colours) -> None:
        axes = figure.subplots()
        axes.plot(100 * refused[some], accuracies[some], color=colours.first)
        axes.set_xlabel("refused: the least sure answers, in % of the images")
        axes.set_ylabel("accuracy of the others")

    half = refusing(context.confidence, context.correct, share=0.1)
    alt = (
        f"Accuracy by the share of answers that are refused: {found.accuracies[-1]:.3f} if none is, "
        f"{half.accuracy:.3f} if the least sure 10 % are."
    )
    return svg(draw, alt=alt, width=5.6, height=3.2)
