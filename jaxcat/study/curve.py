"""Would more images help: the learning curve of a study, of all classes and of each, and a sentence about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcat.models.backbone import BACKBONES
from jaxcat.models.completion import candidates as ranges_of
from jaxcat.objectives.exact.every_range import Candidate, Judged, candidates_of
from jaxcat.objectives.exact.part_grams import PartGrams
from jaxcat.objectives.exact.subsets import measure_subsets, measured_by_leaving_out
from jaxcat.objectives.learning_curve import Curve, Measured, Prediction, fit_curve, sizes_of
from jaxcat.study.ranking import Records

LEAST = 10  # records of a class, or of two classes together, in the smallest subset
OF_CLASS = 50  # records that a class needs for a curve of its own
MOST_CLASSES = 20  # more have no curves of their own
FACTORS = (2, 4)  # times as many records, for which accuracy is predicted
UNSEEN = 0.0005  # a gain may be none if its interval reaches down to this
FLAT = 0.005  # a gain in accuracy that is less than this, by doubling the records, is called none


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """What was measured on subsets, and what follows.

    Attributes:
        points: (records, accuracy, subsets) of each size.
        curve: the fitted law; None if there are too few sizes.
        predictions: for the number of records that there are, twice and four times as many; none for a flat curve if
            the features do not separate the classes.
        gain: accuracy gained by twice as many records, and its 95 % interval; None without a curve.
        per_class: name → accuracy now and with twice as many records of all classes.
        choices: how many ranges × poolings were chosen from within each subset.
    """

    points: tuple[tuple[int, float, int], ...]
    curve: Curve | None
    predictions: tuple[Prediction, ...]
    gain: tuple[float, float, float] | None
    per_class: dict[str, tuple[Prediction, Prediction]]
    choices: int

    @property
    def flat(self) -> bool:
        """Whether twice as many records are expected to help by less than `FLAT`, or nothing is predicted."""
        return self.gain is not None and (not self.predictions or self.gain[0] < FLAT)

    @property
    def sure(self) -> bool:
        """Whether the interval of the gain is above 0, by at least `UNSEEN`."""
        return self.gain is not None and self.gain[1] >= UNSEEN

    def to_json(self) -> dict[str, Any]:
        law = None
        if self.curve is not None:
            fitted = self.curve.law
            law = {
                "asymptote": float(fitted.asymptote),
                "gain": float(fitted.gain),
                "exponent": float(fitted.exponent),
                "unit": fitted.unit,
            }
        return {
            "measured": [{"records": n, "accuracy": a, "subsets": r} for n, a, r in self.points],
            "error": law,
            "predicted": [each._asdict() for each in self.predictions],
            "gain_by_doubling": None
            if self.gain is None
            else dict(zip(("gain", "low", "high"), self.gain, strict=True)),
            "flat": self.flat,
            "per_class": {name: [each._asdict() for each in both] for name, both in self.per_class.items()},
            "chosen_from": self.choices,
        }


def short_list(grams: PartGrams, backbone: str) -> tuple[Candidate, ...]:
    """The ranges among which `model.pool_from=auto` chooses, as far as the study has their blocks, × poolings."""
    blocks = {part.block for part in grams.parts}
    ranges = [blocks_of for blocks_of in ranges_of(BACKBONES[backbone]) if blocks.issuperset(blocks_of)]
    every = tuple(dict.fromkeys(part.block for part in grams.parts))
    return candidates_of(grams, ranges if every in ranges else [every, *ranges])


def curve_of(
    grams: PartGrams,
    judged: Judged,
    records: Records,
    *,
    backbone: str,
    right: np.ndarray,
    classes: Sequence[str],
    seed: int,
    progress: Callable[[str], None],
) -> LearningCurve:
    """Measures subsets of the ranking records, and fits the law.

    Args:
        judged: of the ranking records, all ranges.
        right: bool (N,), whether the head chosen in the end is right about each train record, left out.
    """
    choices = short_list(grams, backbone)
    sizes = sizes_of(len(records.numbers), least=LEAST * max(2, len(classes) // 2))
    found = list(measure_subsets(grams, records.some, choices, sizes, seed=seed, progress=progress))
    found.append(measured_by_leaving_out(judged, choices))
    if not records.all_rank:
        count = len(records.problem.labels)
        found = [_among_all(each, records.numbers, count) for each in found]
        found.append(Measured(float(count), ~right[None], np.ones((1, count), bool)))
    return _fitted(found, records, classes=classes, seed=seed, choices=len(choices))


def _fitted(
    found: Sequence[Measured], records: Records, *, classes: Sequence[str], seed: int, choices: int
) -> LearningCurve:
    points = tuple((round(each.size), 1 - each.error(), len(each.wrong)) for each in found)
    if len(found) < 3:
        return LearningCurve(points, None, (), None, {}, choices)
    problem = records.problem
    groups, labels, count = problem.groups.of_record, problem.labels, len(problem.labels)
    curve = fit_curve(found, groups=groups, seed=seed)
    predictions = tuple(curve.predict(factor * count) for factor in (1, *FACTORS))
    per_class = {}
    if 2 < len(classes) <= MOST_CLASSES or len(classes) == 2:
        for label, name in enumerate(classes):
            of_class = labels == label
            if of_class.sum() >= OF_CLASS:
                own = fit_curve(found, groups=groups, records=of_class, seed=seed)
                per_class[name] = (own.predict(count), own.predict(2 * count))
    return LearningCurve(points, curve, predictions, curve.gain(2 * count, above=count), per_class, choices)


def _among_all(measured: Measured, numbers: np.ndarray, count: int) -> Measured:
    """The same answers with a column for each of all records; those that did not rank were not answered."""
    wrong, answered = np.zeros((2, len(measured.wrong), count), bool)
    wrong[:, numbers], answered[:, numbers] = measured.wrong, measured.answered
    return Measured(measured.size, wrong, answered)


def unpredicted(curve: LearningCurve) -> LearningCurve:
    """The curve of a study that learned nothing: without predictions, unless more records are sure to help.

    Leave-one-out on noise is below chance if classes are equally large, because leaving an image out lowers the share
    of its own class. So intervals that predict it cover less than they state.
    """
    return dataclasses.replace(curve, predictions=(), per_class={}) if curve.flat or not curve.sure else curve


def in_words(curve: LearningCurve) -> str:
    """One sentence: what twice as many images would bring."""
    if curve.gain is None:
        return "Too few images to say whether more would help."
    if not curve.predictions:
        return "Would more images help? Not as far as can be seen: the curve is flat."
    now, twice = curve.predictions[0], curve.predictions[1]
    gain, low, high = curve.gain
    if curve.flat:
        return (
            "Would more images help? Not as far as can be seen: the curve is flat, twice as many images would change "
            f"the accuracy by {100 * low:+.1f} to {100 * high:+.1f} points."
        )
    return (
        f"Would more images help? Twice as many: {now.accuracy:.3f} → about {twice.accuracy:.3f} ({twice.low:.3f} to "
        f"{twice.high:.3f}), a gain of {100 * gain:.1f} points ({100 * low:.1f} to {100 * high:.1f})"
        + ("." if curve.sure else ", so perhaps none: with so few images it is not sure.")
    )
