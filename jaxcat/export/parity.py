"""How far an exported file's answers are from jaxcat's: measured with the file itself, in its own runtime.

The reference is the same head on jaxcat's XLA engine, on the CPU and in float32, whatever device and engine the run
used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxcat.bottlenecks.engines.names import LEAST_RECORDS, XLA
from jaxcat.errors import ExportError
from jaxcat.export.examples import Examples
from jaxcat.export.formats import FLOAT16, FLOAT32, INT8
from jaxcat.export.network import reference_of
from jaxcat.inference.classifier import Classifier, probabilities
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
        answers: how many differ, of so many `images` of validation.
    """

    engine: str
    answers: int
    images: int

    @property
    def share(self) -> float:
        return self.answers / self.images if self.images else 0.0

    def __str__(self) -> str:
        return f"{self.answers} of {counted(self.images, 'answer')} on validation differ from {self.engine}'s"


@dataclasses.dataclass(frozen=True)
class Parity:
    """Figures of a comparison.

    Attributes:
        images, generated: how many were compared, and how many of them were generated.
        answers: how many different answers they have.
        probability: largest difference of a probability.
        logit: largest difference of a logit, relative to the logits' standard deviation over the images.
        changed: answers on validation that differ from XLA's, and for a run of another engine, from that engine's;
            not counted if all weights are float32 and the run's engine is XLA.
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
            f"{counted(self.answers, 'answer')} among them: largest difference of a probability "
            f"{self.probability:.1e}, of a logit {self.logit:.1e} of the logits' spread"
        )
        yield from map(str, self.changed)

    def problem(self, weights: str) -> str:
        """Why an export with such weights must fail; "" if it need not."""
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


def measured(classifier: Classifier, run: Run, *, examples: Examples, weights: str, console: Console) -> Parity:
    """Compares a file that `run` runs with the classifier; `weights` says whether answers are counted too."""
    reference = Reference(classifier)
    expected, (logits, found) = reference.logits(examples.few), run(examples.few)
    wanted = probabilities(expected)
    changed: tuple[Changed, ...] = ()
    if examples.validation is not None and (weights != FLOAT32 or classifier.wanted != XLA):
        changed = _changed(classifier, run, reference, examples=examples, console=console)
    return Parity(
        images=len(expected),
        generated=examples.generated,
        answers=len(np.unique(wanted.argmax(axis=1))),
        probability=_largest(found - wanted),
        logit=_largest(logits - expected) / spread(expected),
        changed=changed,
    )


def spread(logits: np.ndarray) -> float:
    """The standard deviation of logits (N, outputs) over the images, all outputs together; 1 if all are equal."""
    return float(np.sqrt(np.mean(np.square(logits - logits.mean(axis=0)), dtype=np.float64))) or 1.0


def _largest(differences: np.ndarray) -> float:
    largest = float(np.abs(differences).max())
    return largest if np.isfinite(largest) else float("inf")


def _changed(
    classifier: Classifier, run: Run, reference: Reference, *, examples: Examples, console: Console
) -> tuple[Changed, ...]:
    """Counts the answers on validation that differ from the reference's and from those of the run's own engine."""
    assert examples.validation is not None
    count, changed, of_own = 0, 0, 0
    own = classifier.computation(LEAST_RECORDS, console=console)
    with progress_of("comparing answers", total=len(examples.validation), console=console) as advance:
        for images in examples.many():
            answers = run(images)[1].argmax(axis=1)
            changed += int((answers != probabilities(reference.logits(images)).argmax(axis=1)).sum())
            if own.engine != XLA:
                (logits,) = [each for each, _ in own.outputs(iter(images), batch_size=len(images), features=False)]
                of_own += int((answers != probabilities(logits).argmax(axis=1)).sum())
            count += len(images)
            advance(len(images))
    found = Changed(XLA, changed, count)
    return (found,) if own.engine == XLA else (found, Changed(own.engine, of_own, count))
