"""The data: labels that look wrong, near duplicates, twins, unusual images, and what kind of images there are."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.inspection import form_of
from jaxcat.data.records import SPLITS, Split, printed_order
from jaxcat.errors import JaxcatError
from jaxcat.objectives.exact.parts import Part
from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.objectives.near_duplicates import LEAST_IMAGES
from jaxcat.report.context import Context
from jaxcat.report.features import cached_parts, parts_of
from jaxcat.report.known_data import TRAIN, Indexed, Twin, indexed, twins_across
from jaxcat.report.origins import shown_path
from jaxcat.report.pictures import QUALITY, THUMBNAIL, jpeg
from jaxcat.report.section import Section
from jaxcat.study.images import Alike, Copies, Image, labels_that_look_wrong, near_duplicates
from jaxcat.wording import counted, printable

MOST_COMPARED = 30_000  # images among which near duplicates are looked for: every pair is compared, in about a minute
SIZES_SHOWN = 6
THIS = "this split"  # the name of the report's records among those that are compared


def section_of(context: Context) -> Section:
    """Everything is from what was measured, the cache and the run's list; no image of the report is decoded again."""
    found = indexed(context)
    suspects = _suspects(context)
    twins = twins_across(context)
    copies, compared = _copies(context, found)
    unusual = [] if copies is None else [each for each in copies.unusual if each[0].split == THIS][: context.top]
    counts = _counts(context)
    values = {
        "suspects": suspects,
        "pairs": _pairs(context, found, copies),
        "compared": compared,
        "twins": {"words": _of_twins(twins), "cards": _twins(context, twins)},
        "unusual": [_card(context, image.number, f"distance {far:.2f}") for image, far in unusual],
        "counts": counts,
        "without_images": len(context.classes) - len(counts),
        "splits": _names_of_splits(context),
        "about": _about(context),
        "skipped": [*(found.skipped if found else ()), *_unreadable(context)],
    }
    reading = (
        "Look at these images before you look at the classifier: a wrong label or an image that is in two splits makes "
        "every figure of this page wrong."
    )
    return Section("data", "The data", reading, "data.html", values)


def _card(context: Context, number: int, *lines: str) -> dict[str, Any]:
    """An image of the report with its name and label."""
    (number,) = context.pictures.embed([number])
    label = context.classes[context.labels[number]]
    return {"number": number, "file": context.files[number], "label": label, "lines": lines}


# labels ---------------------------------------------------------------------------------------------------------------


def _suspects(context: Context) -> dict[str, Any]:
    """Labels by the probabilities of a classifier that did not see them."""
    if context.own and context.split.name == TRAIN:
        return {"words": "Not looked for: the head was trained on these labels.", "cards": []}
    best = np.bincount(context.labels).max() / len(context)
    learned = accuracy_interval(context.correct, context.groups, seed=context.seed)[0] > best
    found = labels_that_look_wrong(context.log_probabilities, context.labels, learned=bool(learned))
    listed = [int(i) for i in found.order if found.confident[i]]
    if not learned:
        words = "Not looked for: the classifier is no better than the class that is right most often."
    elif not listed:
        words = "None looks wrong with confidence."
    else:
        more = f", the {context.top} most suspicious ones here" if len(listed) > context.top else ""
        words = (
            f"{counted(len(listed), 'label')} of {len(context):,} may be wrong{more}: the classifier is sure of "
            "another class, by confident learning. It may be the one that is wrong."
        )
    cards = [
        _card(context, i, f"looks like {context.classes[found.suggested[i]]}", _chances(context, i, found.suggested[i]))
        for i in listed[: context.top]
    ]
    return {"words": words, "cards": cards}


def _chances(context: Context, number: int, suggested: int) -> str:
    row = context.probabilities[number]
    return f"probability {row[context.labels[number]]:.3f} of its label, {row[suggested]:.3f} of that"


# near duplicates and twins --------------------------------------------------------------------------------------------


def _copies(context: Context, found: Indexed | None) -> tuple[Copies | None, str]:
    """Near duplicates among the records, and with train if the cache has its features; and what was compared."""
    own = parts_of(context)
    if own is None:
        return None, "Near duplicates were not looked for: the features of these images take too much memory."
    if len(context) > MOST_COMPARED:
        return None, f"Near duplicates were not looked for: there are more than {MOST_COMPARED:,} images."
    splits: dict[str, Split] = {THIS: context.split}
    parts: dict[str, list[Part]] = {THIS: own}
    train = found.train if found else None
    words = ""
    if context.own and context.split.name == TRAIN:
        train = None
    elif train is None:
        words = " Train was not compared: its images are not here as the run has listed them."
    elif len(context) + len(train) > MOST_COMPARED:
        train, words = None, f" Train was not compared: that is done up to {MOST_COMPARED:,} images."
    if train is not None:
        if (rows := cached_parts(context, train)) is None:
            words = " Train was not compared: the cache does not have its features."
        else:
            splits[TRAIN], parts[TRAIN] = train, rows
    total = sum(map(len, splits.values()))
    if total < LEAST_IMAGES:
        return None, f"Near duplicates were not looked for: that needs at least {LEAST_IMAGES} images.{words}"
    alone = np.arange(len(context)) if context.groups is None else context.groups
    groups = {THIS: alone, TRAIN: np.arange(len(train) if train is not None else 0)}
    copies = near_duplicates(splits, groups, parts, progress=lambda words: None)
    among = "among these images and those of train" if TRAIN in splits else "among these images"
    return copies, f"Looked for {among}, {total:,} in all.{words}"


def _pairs(context: Context, found: Indexed | None, copies: Copies | None) -> dict[str, Any]:
    """The pairs that have an image of the report, those across splits and of two labels first."""
    if copies is None:
        return {"words": "", "pairs": []}
    touching = (pair for pair in copies.pairs if THIS in (pair.first.split, pair.second.split))
    every = [pair for pair in touching if not _same(pair)]
    if not every:
        return {"words": "None was found.", "pairs": []}
    across, labels = sum(pair.across for pair in every), sum(pair.labels for pair in every)
    words = (
        f"{counted(len(every), 'pair')} of nearly the same images: {across:,} with an image of train, {labels:,} with "
        "two labels. Images that only share a background may be among them; a cosine near 1 is a copy."
    )
    train = found.train if found else None
    return {"words": words, "pairs": [_pair(context, train, pair) for pair in every[: context.top]]}


def _same(pair: Alike) -> bool:
    """Whether a pair has the same pixels or is of one group, and one label: it counts once already."""
    return pair.known and not pair.labels


def _pair(context: Context, train: Split | None, pair: Alike) -> dict[str, Any]:
    first, second = (_image(context, train, each) for each in (pair.first, pair.second))
    return {"first": first, "second": second, "cosine": f"{pair.cosine:.2f}", "labels": pair.labels}


def _image(context: Context, train: Split | None, image: Image) -> dict[str, Any]:
    """An image of the report or of train; those of train are decoded for this, one by one."""
    if image.split == THIS:
        return {**_card(context, image.number), "split": context.split.name, "source": ""}
    assert train is not None
    try:
        content = jpeg(train.fetch(image.number), side=THUMBNAIL, quality=QUALITY)
    except JaxcatError:  # it was readable when its features were computed
        content = b""
    return {
        "number": None,
        "file": printable(train.files[image.number]),
        "label": context.classes[train.labels[image.number]],
        "lines": (),
        "split": TRAIN,
        "source": f"data:image/jpeg;base64,{base64.b64encode(content).decode()}",
    }


def _of_twins(twins: Sequence[Twin]) -> str:
    if not twins:
        return ""
    trained = sum(each.split == TRAIN for each in twins)
    words = f"{counted(len(twins), 'image')} of these are also in another split, with the same file or the same pixels."
    if trained:
        words += f" The head was trained on {trained:,} of them, which makes the accuracy look better than it is."
    return words


def _twins(context: Context, twins: Sequence[Twin]) -> list[dict[str, Any]]:
    return [
        _card(context, each.number, f"is {printable(each.file)} of {each.split}, {context.classes[each.label]}")
        for each in twins[: context.top]
    ]


# what there is --------------------------------------------------------------------------------------------------------


def _names_of_splits(context: Context) -> list[str]:
    return [context.name, *_others(context)]


def _others(context: Context) -> Mapping[str, np.ndarray]:
    """Labels of the run's other splits."""
    listed = context.listed or {}
    return {n: listed[n].labels for n in SPLITS if n in listed and not (context.own and n == context.split.name)}


def _counts(context: Context) -> list[dict[str, Any]]:
    """Images of each class that has any, the fewest first."""
    count = len(context.classes)
    columns = [np.bincount(each, minlength=count) for each in (context.labels, *_others(context).values())]
    order = sorted(printed_order(context.classifier.classes), key=lambda label: tuple(int(of[label]) for of in columns))
    there = [label for label in order if any(of[label] for of in columns)]
    return [{"name": context.classes[label], "counts": [f"{of[label]:,}" for of in columns]} for label in there]


def _about(context: Context) -> list[dict[str, str]]:
    """Sizes and formats of the images."""
    seen = [context.pictures.seen(number) for number in range(len(context))]
    sizes = Counter((each.width, each.height) for each in seen)
    by_area = sorted(sizes.elements(), key=lambda size: size[0] * size[1])
    small, middle, large = (f"{w} × {h}" for w, h in (by_area[0], by_area[len(by_area) // 2], by_area[-1]))
    frequent = ", ".join(f"{w} × {h} ({n:,})" for (w, h), n in sizes.most_common(SIZES_SHOWN))
    side = context.classifier.config.data.image_size
    enlarged = sum(min(each.width, each.height) < side for each in seen)
    with ThreadPoolExecutor() as threads:
        forms = Counter(threads.map(lambda number: form_of(context.split.stored(number)), range(len(context))))
    return [
        {
            "what": "Sizes",
            "value": f"{small} to {large} pixels, {middle} in the middle" if small != large else f"{small} pixels",
        },
        {"what": "Most frequent", "value": frequent + (", …" if len(sizes) > SIZES_SHOWN else "")},
        {"what": "The network sees", "value": f"{side} × {side}; {counted(enlarged, 'image')} had a shorter side"},
        {"what": "Formats", "value": ", ".join(f"{form} ({n:,})" for form, n in forms.most_common())},
    ]


def _unreadable(context: Context) -> list[str]:
    """The images that were left out, named as the data name them, without the folders of this machine."""
    lines = list(context.unreadable)
    for place in (context.data, context.moved, Path(context.classifier.config.data.dir)):
        if place is not None and place.parts:
            root = f"{printable(str(place.expanduser()))}/"
            lines = [line.removeprefix(root) for line in lines]
    named = (line.partition(": ") for line in lines)
    return [f"{shown_path(path)}{colon}{reason}" for path, colon, reason in named]
