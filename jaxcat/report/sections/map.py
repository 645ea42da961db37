"""The map: the images laid out by what the network sees of them, so that alike ones lie together."""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from jaxcat.report.context import Context
from jaxcat.report.features import parts_of
from jaxcat.report.section import Section

MOST = 2000  # images; of more, a sample
LEAST = 12  # images, with fewer there is nothing to lay out
DIRECTIONS = 50  # that t-SNE starts from, as its authors do (van der Maaten and Hinton, JMLR 9, 2008)
PERPLEXITY = 30.0
WIDTH, HEIGHT, MARGIN = 1000, 700, 20  # of the drawing
# Classes by colour as long as they can be told apart; each is dark enough on white and light enough on the dark ground.
COLOURS = (
    *("#3b7de0", "#d96f00", "#17915a", "#c04aa8", "#8a6be0"),
    *("#a67c00", "#0b93a8", "#d6454f", "#6f8f2a", "#77818f"),
)


def section_of(context: Context) -> Section | None:
    """None if there are too few images, or their features are not at hand."""
    chosen = _chosen(context)
    if len(context) < LEAST or (places := _places(context, chosen)) is None:
        return None
    context.pictures.embed(chosen)
    points = [_point(context, int(number), place) for number, place in zip(chosen, places, strict=True)]
    named = len(context.classes) <= len(COLOURS)
    colours = [COLOURS[i] if named else _hue(i) for i in range(len(context.classes))]
    values = {
        "width": WIDTH,
        "height": HEIGHT,
        "marks": [
            (*place, colours[context.labels[number]], bool(context.correct[number]))
            for number, place in zip(chosen, places, strict=True)
        ],
        "points": points,
        "classes": list(context.classes),
        "choices": [(int(label), context.classes[label]) for label in np.unique(context.labels[chosen])],
        "legend": list(zip(colours, context.classes, strict=True)) if named else [],
        "wrong": int((~context.correct[chosen]).sum()),
        "sample": f"A sample of {MOST:,} of the {len(context):,} images." if len(chosen) < len(context) else "",
    }
    reading = (
        "Images that the network finds alike lie together; distances between far groups mean nothing. A cross is an "
        "image that is answered wrongly: among its own class it is a hard one, among another class perhaps a wrong "
        "label."
    )
    return Section("map", "Map of the images", reading, "map.html", values)


def _chosen(context: Context) -> np.ndarray:
    """Sorted numbers of the images on the map."""
    if len(context) <= MOST:
        return np.arange(len(context))
    return np.sort(np.random.default_rng(context.seed).choice(len(context), MOST, replace=False))


def _places(context: Context, chosen: np.ndarray) -> list[tuple[float, float]] | None:
    """x and y in the drawing of each chosen image."""
    if (parts := parts_of(context)) is None:
        return None
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    columns = []
    for part in parts:
        rows = np.asarray(part.read(0, len(context))[chosen], np.float32)
        rows = rows - rows.mean(axis=0)
        columns.append(rows / (np.sqrt(rows.var(axis=0).sum()) or 1.0))  # so that every part counts as much
    features = np.hstack(columns)
    if not features.any():
        return None
    directions = min(DIRECTIONS, *features.shape)
    reduced = PCA(directions, random_state=context.seed).fit_transform(features)
    perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
    # Its threads wait for each other in every one of 1,000 short steps, and much longer where others use the machine.
    with threadpool_limits(1, "openmp"):
        found = TSNE(perplexity=perplexity, init="pca", random_state=context.seed).fit_transform(reduced)
    low, high = found.min(axis=0), found.max(axis=0)
    scaled = (found - low) / np.where(high > low, high - low, 1)
    room = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    return [(round(float(x), 1), round(float(y), 1)) for x, y in MARGIN + scaled * room]


def _point(context: Context, number: int, place: tuple[float, float]) -> list[Any]:
    """What the script shows of a point: x, y, the image's number, label, answer, its probability, and the file."""
    label, predicted = int(context.labels[number]), int(context.predicted[number])
    return [*place, number, label, predicted, round(float(context.confidence[number]), 3), context.files[number]]


def _hue(index: int) -> str:
    """Colours of many classes: neighbours differ, but far classes may look the same."""
    return f"hsl({index * 137.508 % 360:.0f}, 60%, 52%)"
