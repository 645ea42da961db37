"""How far an exported file's answers are from jaxcat's: measured with the file itself, in its own runtime.

The reference is the same head on jaxcat's XLA engine, on the CPU and in float32, whatever device and engine the run
used.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxcat.bottlenecks.engines.names import LEAST_RECORDS, XLA
from jaxcat.errors import DataError, ExportError
from jaxcat.export.examples import Examples
from jaxcat.export.formats import FLOAT16, FLOAT32, INT8
from jaxcat.export.network import reference_of
from jaxcat.inference.classifier import Classifier
from jaxcat.objectives.probabilities import probabilities
from jaxcat.system.console import Console, progress_of
from jaxcat.wording import counted

# uint8 images (N, S, S, 3) → logits float32 (N, outputs) and probabilities float32 (N, classes)
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

LARGEST_DIFFERENCE = 1e-4  # of float32: of a probability, and of a logit relative to the spread of the logits
MOST_CHANGED = {FLOAT16: 0.01, INT8: 0.03}  # share of the answers on validation
AT_ONCE = 8  # images that the reference computes at once


@dataclasses.dataclass(frozen=True)
class Changed:
    """Answers that differ from those of an engine.

    Attributes:
        engine: what the file is compared with.
        answers: how many differ, of so many `images`.
        of: what these images are.
    """

    engine: str
    answers: int
    images: int
    of: str = "validation"

    @property
    def share(self) -> float:
        return self.answers / self.images if self.images else 0.0

    def __str__(self) -> str:
        return f"{self.answers} of {counted(self.images, 'answer')} on {self.of} differ from {self.engine}'s"


@dataclasses.dataclass(frozen=True)
class Parity:
    """Figures of a comparison.

    Attributes:
        images, generated: how many were compared, and how many of them were generated.
        answers: how many different answers they have.
        probability: largest difference of a probability.
        logit: largest difference of a logit, relative to the logits' standard deviation over the images.
        changed: answers on validation, or on the compared images if there is no validation, that differ from XLA's,
            and for a run of another engine, from that engine's; not counted if all weights are float32 and the run's
            engine is XLA.
    """

    images: int
    generated: int
    answers: int
    probability: float
    logit: float
    changed: tuple[Changed, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)

    def lines(self) -> Iterator[str]:
        """What is printed."""
        made = f", {self.generated} of them generated" if self.generated else " of validation"
        yield (
            f"compared with jaxcat on the CPU in float32, {counted(self.images, 'image')}{made}, "
            f"of {counted(self.answers, 'class', 'classes')} by their answers: largest difference of a probability "
            f"{self.probability:.1e}, of a logit {self.logit:.1e} of the logits' spread"
        )
        yield from map(str, self.changed)

    def problem(self, weights: str) -> str:
        """Why an export with these weights must fail; "" if it need not."""
        worst = max(self.probability, self.logit)
        if weights == FLOAT32:
            return "" if worst <= LARGEST_DIFFERENCE else f"above {LARGEST_DIFFERENCE:.0e}: the file is not exact"
        share, most = max((each.share for each in self.changed[:1]), default=0.0), MOST_CHANGED[weights]
        if not np.isfinite(worst):
            return "the file gives values that are no numbers"
        return "" if share <= most else f"{share:.1%} of the answers have changed, more than {most:.0%}"


class Reference:
    """The classifier on one CPU, by XLA, in float32."""

    def __init__(self, classifier: Classifier):
        try:
            self._cpu = jax.devices("cpu")[0]
        except RuntimeError as error:
            raise ExportError("JAX has no CPU here to compare with: leave JAX_PLATFORMS unset") from error
        network = reference_of(classifier)
        host = classifier.xla.host_arrays
        self._arrays = jax.device_put(network.split(host(classifier.params), host(classifier.stats)), self._cpu)

        @jax.jit
        def logits(arrays: Any, images: jax.Array) -> jax.Array:
            frozen, trained = arrays
            return network.suffix(trained["params"], trained["stats"], network.prefix(frozen, images))[0]

        self._logits = logits

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S, 3) → float32 (N, outputs)."""
        found = []
        for start in range(0, len(images), AT_ONCE):
            batch = images[start : start + AT_ONCE]
            padded = np.zeros((AT_ONCE, *batch.shape[1:]), np.uint8)
            padded[: len(batch)] = batch
            with jax.default_device(self._cpu):
                found.append(np.asarray(self._logits(self._arrays, padded))[: len(batch)])
        return np.concatenate(found)


class Expected:
    """What jaxcat answers, by XLA on one CPU in float32, and what the run's own engine answers.

    Answers on validation are computed when they are first asked for.

    Attributes:
        classifier: the classifier.
        examples: the images.
        few: logits float32 (n, outputs) of `examples.few`.
    """

    def __init__(self, classifier: Classifier, examples: Examples, *, console: Console):
        self.classifier, self.examples, self._console = classifier, examples, console
        self._reference = Reference(classifier)
        self.few = self._reference.logits(examples.few)

    @functools.cached_property
    def answers(self) -> np.ndarray:
        """Number of the most probable class of each validation image."""
        return self.answers_of(lambda images: probabilities(self._reference.logits(images)), XLA)

    @functools.cached_property
    def own(self) -> tuple[str, np.ndarray] | None:
        """The name of the run's own engine and its answers; None if that is XLA."""
        computation = self.classifier.engine.computation(LEAST_RECORDS, console=self._console)
        if computation.engine == XLA:
            return None

        def run(images: np.ndarray) -> np.ndarray:
            found = computation.outputs(iter(images), batch_size=len(images), features=False)
            return np.concatenate([probabilities(logits) for logits, _ in found])

        return computation.engine, self.answers_of(run, computation.engine)

    def answers_of(self, run: Callable[[np.ndarray], np.ndarray], name: str) -> np.ndarray:
        """The answers on validation of anything that gives probabilities; `name` is for the line of progress.

        Raises DataError if no image could be read.
        """
        total, found = len(self.examples.validation or ()), []
        with progress_of(f"answers of {name}", total=total, console=self._console) as advance:
            for images in self.examples.many():
                found.append(run(images).argmax(axis=1))
                advance(len(images))
        if total and not found:
            raise self._unreadable(f"none of {counted(total, 'validation image')} could be read")
        return np.concatenate([np.zeros(0, int), *found])

    def changed(self, run: Callable[[np.ndarray], np.ndarray]) -> tuple[Changed, ...]:
        """How many answers of the file that `run` runs differ from those of XLA, and from those of the run's engine.

        Raises DataError if another number of images could be read for one of them than for the file.
        """
        answers, changed = self.answers_of(run, "the file"), []
        for name, others in [(XLA, self.answers), *([self.own] if self.own else [])]:
            if len(others) != len(answers):
                read = counted(len(answers), "validation image")
                raise self._unreadable(f"{read} could be read for the answers of the file, {len(others)} for {name}'s")
            changed.append(Changed(name, int((answers != others).sum()), len(answers)))
        return tuple(changed)

    def _unreadable(self, what: str) -> DataError:
        return DataError(
            f"{self.classifier.config.data.dir}: {what}: put back what was moved or removed, and export again"
        )


def measured(expected: Expected, run: Run, *, weights: str) -> Parity:
    """Compares the file that `run` runs with jaxcat; counts changed answers if weights or engine cause some."""
    examples, wanted = expected.examples, probabilities(expected.few)
    logits, found = run(examples.few)
    changed: tuple[Changed, ...] = ()
    if examples.validation is not None and (weights != FLOAT32 or expected.classifier.engine.wanted != XLA):
        changed = expected.changed(lambda images: run(images)[1])
    elif weights != FLOAT32:
        differ = int((found.argmax(axis=1) != wanted.argmax(axis=1)).sum())
        changed = (Changed(XLA, differ, len(wanted), "generated images"),)
    return Parity(
        images=len(expected.few),
        generated=examples.generated,
        answers=len(np.unique(wanted.argmax(axis=1))),
        probability=_largest(found - wanted),
        logit=_largest(logits - expected.few) / spread(expected.few),
        changed=changed,
    )


def spread(logits: np.ndarray) -> float:
    """The standard deviation of logits (N, outputs) over the images, all outputs together; 1 if all are equal."""
    return float(np.sqrt(np.mean(np.square(logits - logits.mean(axis=0)), dtype=np.float64))) or 1.0


def _largest(differences: np.ndarray) -> float:
    largest = float(np.abs(differences).max())
    return largest if np.isfinite(largest) else float("inf")
