"""What the sections are made from: a classifier, the records it was measured on, and its answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.records import Split
from jaxcat.errors import CheckpointError
from jaxcat.inference.classifier import Classifier
from jaxcat.report.pictures import Pictures
from jaxcat.runs.choice import choose
from jaxcat.runs.meta import read_meta
from jaxcat.runs.records import Listed
from jaxcat.system.console import Console
from jaxcat.wording import printable


@dataclass(frozen=True, eq=False)
class Context:
    """One classifier on the N records of one split, all of them readable.

    Attributes:
        classifier: what was measured.
        workdir: of the run, as it was typed; None for published weights.
        name: of the split, or of the folder of other data; printable.
        split: the records, in the order of all arrays here.
        own: whether they are a split of the run's own data.
        digests: of each record, as `Split.digest` gives it.
        listed: the records that the run has listed, by split; None if it has no list.
        groups: int64 (N,): records of one group, or with the same pixels, share a number. None if each is alone.
        log_probabilities: float64 (N, classes).
        summary: the figures, as evaluate writes them.
        unreadable: one line for each image that was left out.
        pictures: the images for the page.
        data, moved, step, engine, calibrated, calibrate, compare, top: as asked for; see `report.report`.
        block: of the backbone, whose maps the gallery shows.
        given_features: what gives float32 (N, F), see `features`; called once.
        console: where progress is shown.
        seed: of everything that is drawn.
    """

    classifier: Classifier
    workdir: Path | None
    name: str
    split: Split
    own: bool
    digests: tuple[bytes, ...]
    listed: dict[str, Listed] | None
    groups: np.ndarray | None
    log_probabilities: np.ndarray
    summary: dict[str, Any]
    unreadable: tuple[str, ...]
    pictures: Pictures
    data: Path | None
    moved: Path | None
    step: str | int
    engine: str
    calibrated: bool
    calibrate: bool
    block: str
    compare: tuple[Path, ...]
    top: int
    given_features: Callable[[], np.ndarray | None]
    console: Console
    seed: int = 0

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> np.ndarray:
        """int32 (N,)."""
        return self.split.labels

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """float64 (N, classes)."""
        return np.exp(self.log_probabilities)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """int64 (N,): the most probable class; the same as in the confusion matrix of `summary`."""
        return self.probabilities.argmax(axis=1)

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """float64 (N,): the probability of the predicted class."""
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def correct(self) -> np.ndarray:
        """bool (N,)."""
        return self.predicted == self.labels

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """float64 (N,): -log of the probability of the label, in nats."""
        return -self.log_probabilities[np.arange(len(self)), self.labels]

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes as they are shown: printable."""
        return tuple(map(printable, self.classifier.classes))

    @functools.cached_property
    def files(self) -> tuple[str, ...]:
        """The names of the records as they are shown: printable."""
        return tuple(map(printable, self.split.files))

    @functools.cached_property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The run's epochs, also those after the step of this report, as far as the latest checkpoint can be read."""
        classifier = self.classifier
        try:
            if classifier.workdir is not None:
                return read_meta(classifier.workdir, choose(classifier.workdir, "latest")).history
        except CheckpointError:
            pass
        return classifier.meta.history

    def features(self) -> np.ndarray | None:
        """The pooled features that the head sees, float32 (N, F).

        They come from the cache or from the pass that gave the answers, and only else from a pass of their own. None
        if they would take more than `making.MOST_FEATURES` bytes.
        """
        return self._features

    @functools.cached_property
    def _features(self) -> np.ndarray | None:
        return self.given_features()
