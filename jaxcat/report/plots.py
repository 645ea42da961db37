"""Plots of the page: SVG in two colour schemes, drawn by matplotlib."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure


class Colours(NamedTuple):
    """The colours of one scheme, as matplotlib takes them; `first` and `second` also differ in lightness."""

    text: str
    soft: str
    line: str
    first: str
    second: str
    bad: str


LIGHT = Colours("#1b1f27", "#596273", "#d4d9e2", "#2457d6", "#b35c00", "#a8161c")
DARK = Colours("#e9ecf1", "#a3adbd", "#343c49", "#86a9ff", "#f0b266", "#ff9a94")


class Plot(NamedTuple):
    """A plot as two data URIs of SVG, and the text for those who do not see it."""

    light: str
    dark: str
    alt: str
    width: int
    height: int


Draw = Callable[[Figure, Colours], Any]


def svg(draw: Draw, *, alt: str, width: float = 6.4, height: float = 3.6) -> Plot:
    """Draws a plot in the light scheme, and colours its lines and texts anew for the dark one.

    Args:
        draw: called with a new figure and the colours. It draws no text from outside, in which matplotlib takes `$…$`
            for mathematics.
        alt: what the plot shows, in words.
        width, height: in inches; at 100 % the page shows 96 pixels for each.
    """
    light = _drawn(draw, LIGHT, width, height)
    return Plot(_uri(light), _uri(_dark(light)), alt, round(96 * width), round(96 * height))


def _drawn(draw: Draw, colours: Colours, width: float, height: float) -> str:
    """The SVG."""
    file = io.BytesIO()
    # Text stays text, in the reader's own font: smaller than outlines, and it has the characters of every language,
    # where matplotlib's font, which only measures them, warns of those that it lacks.
    with rc_context(_style(colours)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure, colours)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue().decode()
    return re.sub(r"<!DOCTYPE[^>]*>|<\?xml[^>]*>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL).strip()


def _dark(light: str) -> str:
    """What `_drawn` gives in the dark scheme, at a hundredth of the time; all colours of a scheme differ."""
    of = dict(zip(LIGHT, DARK, strict=True))

    def recoloured(style: re.Match) -> str:
        return re.sub("#[0-9a-f]{6}", lambda colour: of.get(colour[0], colour[0]), style[0])

    return re.sub('style="[^"]*"', recoloured, light)


def _uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _style(colours: Colours) -> Any:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "jaxcat",  # else every file has other identifiers
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": colours.text,
        "axes.labelcolor": colours.text,
        "axes.titlecolor": colours.text,
        "axes.titlesize": 10,
        "axes.edgecolor": colours.line,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": colours.line,
        "grid.linewidth": 0.6,
        "xtick.color": colours.soft,
        "ytick.color": colours.soft,
        "xtick.labelcolor": colours.soft,
        "ytick.labelcolor": colours.soft,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
    }
