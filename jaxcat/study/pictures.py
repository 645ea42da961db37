"""The plots of a study, as SVG and PNG: accuracy by range and cost, and the learning curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxcat.study.results import Results
from jaxcat.study.summary import FEWEST, SHOWN
from jaxcat.system.files import replacing

BLUE, GREY, RED = "#20609f", "#9aa5b1", "#c0392b"
BEYOND = 4  # the curve is drawn up to so many times the records


def draw(workdir: Path, results: Results) -> None:
    """Writes ranges.svg and .png, and curve.svg and .png if there is a curve."""
    _save(_ranges(results), workdir / "ranges")
    if results.curve.curve is not None:
        _save(_curve(results), workdir / "curve")


def _save(figure: Figure, path: Path) -> None:
    for kind in ("svg", "png"):
        with replacing(path.with_suffix(f".{kind}")) as aside:
            figure.savefig(aside, format=kind, dpi=120)


def _ranges(results: Results) -> Figure:
    """Left the best ranges with their intervals, right accuracy by cost with the front."""
    sized = len({row.size for row in results.rows}) > 1
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    solved = [row for row in results.rows if row.solved]
    best = (solved if len(solved) >= FEWEST else results.rows[:SHOWN])[::-1]
    places = np.arange(len(best))
    accuracies = np.array([row.accuracy for row in best])
    errors = np.array([[row.accuracy - row.low, row.high - row.accuracy] for row in best]).T
    colours = [RED if row is results.winner else BLUE for row in best]
    left.errorbar(accuracies, places, xerr=np.maximum(errors, 0), fmt="none", ecolor=GREY, zorder=1)
    left.scatter(accuracies, places, c=colours, zorder=2)
    left.set_yticks(places, [row.describe(sized=sized) for row in best], fontsize=8)
    left.axvline(results.chance, color=GREY, linestyle=":") if min(accuracies) < results.chance + 0.1 else None
    left.set_xlabel("leave-one-out accuracy, 95 % interval of each range")
    left.set_title("the best ranges of blocks (red: chosen)", fontsize=10)
    _costs(right, results, sized=sized)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _costs(axes: Any, results: Results, *, sized: bool) -> None:
    timed = [row for row in results.rows if row.milliseconds is not None and not row.solved]
    axes.scatter([row.milliseconds for row in timed], [row.accuracy for row in timed], s=8, c=GREY)
    front = results.front
    axes.plot([row.milliseconds for row in front], [row.accuracy for row in front], "o-", c=BLUE)
    names = []
    for number, row in enumerate(front, start=1):
        blocks = row.candidate.blocks
        words = f"{blocks[0]}…{blocks[-1]}" if len(blocks) > 1 else blocks[0]
        names.append(f"{number}  {words}, {row.size} px" if sized else f"{number}  {words}")
        at = (row.milliseconds, row.accuracy)
        axes.annotate(str(number), at, fontsize=8, xytext=(-5, 5), textcoords="offset points", ha="right")
    lines = [Line2D([], [], linestyle="") for _ in names]
    axes.legend(lines, names, loc="lower left", bbox_to_anchor=(1.01, 0), handlelength=0, fontsize=8)
    axes.set_xlabel("milliseconds for one image, on this machine")
    axes.set_ylabel("leave-one-out accuracy")
    axes.set_title("what a range costs (line: none is cheaper and as good)", fontsize=10)


def _curve(results: Results) -> Figure:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes, curve = figure.subplots(), results.curve.curve
    assert curve is not None
    count = len(results.collected.splits["train"])
    first = min(records for records, _, _ in results.curve.points)
    sizes = np.unique(np.geomspace(first, BEYOND * count, 60).round().astype(int))
    predicted = [curve.predict(int(size)) for size in sizes]
    axes.plot(sizes, [p.accuracy for p in predicted], c=BLUE, label="fitted, 95 % interval of what is predicted")
    if results.curve.predictions:  # none for noise
        ahead = [curve.predict(int(size)) for size in np.geomspace(count, BEYOND * count, 20).round()]
        band = [p.low for p in ahead], [p.high for p in ahead]
        axes.fill_between([p.size for p in ahead], *band, color=BLUE, alpha=0.15)
    records, accuracies, _ = zip(*results.curve.points, strict=True)
    axes.scatter(records, accuracies, c=RED, zorder=3, label="measured on subsets")
    axes.axvline(count, color=GREY, linestyle=":", label=f"now: {count:,} images")
    axes.set_xscale("log")
    ticks = [size for size in (first, *(round(count * f) for f in (0.25, 0.5, 1, 2, 4))) if size >= first]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("train images")
    axes.set_ylabel("accuracy")
    axes.set_title("would more images help?", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure
