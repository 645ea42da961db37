"""How the head was made: the learning curve of a trained one, or the blocks and penalties that were compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxcat.report.context import Context
from jaxcat.report.numbers import percent
from jaxcat.report.plots import Colours, Plot, svg
from jaxcat.report.section import Section
from jaxcat.training.stages import beginnings_of, stages_of
from jaxcat.training.writers import CANDIDATES
from jaxcat.wording import counted, first_to_last

LEAST_EPOCHS = 2  # for a plot
SPLITS = ("train", "validation")


def section_of(context: Context) -> Section | None:
    """None if the run has no history, as published weights."""
    history = context.history
    if not history:
        return None
    if CANDIDATES in history[-1]:
        return _of_candidates(history[-1][CANDIDATES])
    return _of_epochs(context, history)


# a trained head -------------------------------------------------------------------------------------------------------


def _of_epochs(context: Context, history: Sequence[Mapping[str, Any]]) -> Section:
    validated = all(entry["validation/accuracy"] is not None for entry in history)
    step = context.classifier.step
    used = next((entry["epoch"] for entry in history if entry["step"] == step), None)
    rows = [
        {
            "epoch": entry["epoch"],
            "figures": [
                _number(entry[f"{split}/{what}"], 4 if what == "loss" else 3)
                for split in (SPLITS if validated else SPLITS[:1])
                for what in ("accuracy", "loss")
            ],
            "used": entry["epoch"] == used,
            "stage": entry.get("stage"),
        }
        for entry in history
    ]
    words = "An epoch is one pass over the training images."
    if validated:
        words += (
            " Where accuracy on train still rises and accuracy on validation does not, the head learns its training "
            "images only."
        )
    if stages := _stages(context, history):
        words += f" The run has {counted(len(stages), 'stage')}: {'; '.join(stages)}."
    values = {
        "staged": bool(stages),
        "plot": _plot(history, used, validated) if len(history) >= LEAST_EPOCHS else None,
        "rows": rows,
        "validated": validated,
        "caption": f"Step {step}, {f'after epoch {used}, ' if used else ''}is the one of this report.",
        "candidates": [],
    }
    return Section("curve", "Learning curve", words, "curve.html", values)


def _stages(context: Context, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each stage of a run did, and in which epochs; [] for a run without stages."""
    first: dict[int, int] = {1: 1} | {stage: epoch for epoch, stage in beginnings_of(history)}
    found: list[str] = []
    for number, stage in enumerate(stages_of(context.classifier.meta.asked), start=1):
        if number not in first:
            break  # it has not begun
        part = "the head alone" if stage.train_from == "head" else f"{stage.train_from} and what follows it"
        done = "solved" if stage.learning_rate is None else f"trained at learning rate {stage.learning_rate:g}"
        found.append(f"from epoch {first[number]}, {part} was {done}")
    return found


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def _plot(history: Sequence[Mapping[str, Any]], used: int | None, validated: bool) -> Plot:
    epochs = [entry["epoch"] for entry in history]
    splits = SPLITS if validated else SPLITS[:1]

    def draw(figure: Figure, colours: Colours) -> None:
        for axes, what in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
            for split, colour, mark in zip(splits, (colours.second, colours.first), ("s", "o"), strict=False):
                values = [entry[f"{split}/{what}"] for entry in history]
                axes.plot(epochs, values, color=colour, marker=mark if len(epochs) <= 40 else None, label=split)
            for epoch, stage in beginnings_of(history):
                axes.axvline(epoch - 0.5, color=colours.soft, linewidth=1, label=f"stage {stage} begins")
            if used:
                axes.axvline(used, color=colours.soft, linestyle=":", label="used here")
            axes.set_xlabel("epoch")
            axes.set_title(what if what == "accuracy" else "loss, in nats")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()

    last = history[-1]
    ends = ", ".join(f"{_number(last[f'{split}/accuracy'], 3)} on {split}" for split in splits)
    alt = f"Accuracy and loss by epoch, {counted(len(history), 'epoch')}; at the end, accuracy {ends}."
    for epoch, stage in beginnings_of(history):
        alt += f" Stage {stage} begins with epoch {epoch}."
    return svg(draw, alt=alt, width=8.4, height=3.2)


# an exact head --------------------------------------------------------------------------------------------------------


def _of_candidates(found: Any) -> Section | None:
    """None if the table cannot be read: a workdir may come from anywhere."""
    try:
        rows = found["ranges"]
        several = len({row["records"] for row in rows}) > 1  # the chosen one was solved again, on all records
        candidates = [
            {
                "blocks": first_to_last([str(block) for block in row["blocks"]]),
                "features": f"{row['columns']:,}",
                "penalty": f"{row['penalty']:.3g}",
                "error": f"{row['squared_error']:.4f}",
                "accuracy": percent(row["accuracy"], 2),
                "records": f"{row['records']:,}",
                "chosen": number == len(rows) - 1
                if several
                else [row["blocks"][0], row["blocks"][-1]] == list(found["chosen"]),
            }
            for number, row in enumerate(rows)
        ]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    reading = (
        "Each row is a head that was solved, not trained, on other blocks of the network, with the penalty that is "
        "best for it. The row with the least squared error was chosen; errors and accuracies are of training images, "
        "each answered by a head that was solved without it."
    )
    values = {"plot": None, "rows": [], "validated": False, "caption": "", "candidates": candidates, "several": several}
    return Section("curve", "Blocks and penalties", reading, "curve.html", values)
