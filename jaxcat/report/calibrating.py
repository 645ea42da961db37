"""`--calibrate`: fits the temperature of a trained head on the images of the report and writes DIR/calibration.json."""

from __future__ import annotations

import hashlib

import numpy as np

from jaxcat.errors import ConfigError
from jaxcat.inference.calibrated import check_calibratable
from jaxcat.inference.classifier import Classifier
from jaxcat.objectives.temperature import Temperature, fit_temperature
from jaxcat.report.context import Context
from jaxcat.runs.calibration import Calibration, arrays_digest, write_calibration
from jaxcat.wording import counted

FLAG = "--calibrate"
# Splits that no temperature is fitted to, and why.
NEVER = {
    "train": "the head has seen these images, so it is surer of them than of others",
    "test": "nothing may be fitted to the test images",
}
LEAST = 50  # images; with fewer, a fit says more about them than about the head


def check_calibrate(classifier: Classifier, split: str) -> None:
    """Checks what can be checked before anything is measured.

    Args:
        split: the name that `--split` gives, or "".

    Raises:
        ConfigError: the classifier can have no temperature, or the images of the split must not set it.
    """
    if classifier.workdir is None:
        raise ConfigError(f"{FLAG} needs --workdir: published weights have no directory for a calibration.json")
    check_calibratable(classifier.meta, FLAG)
    if classifier.calibration:
        raise ConfigError(f"{FLAG}: the temperature is fitted to undivided logits; leave --calibrated out")
    if split in NEVER:
        raise ConfigError(f"{FLAG} --split {split}: {NEVER[split]}; give --split validation")


def temperature_of(context: Context) -> Temperature:
    """The temperature of the answers of a report, and what it changes. Log-probabilities do as logits."""
    return fit_temperature(context.log_probabilities, context.labels, groups=context.groups, seed=context.seed)


def calibrate(context: Context) -> None:
    """Writes the temperature into the workdir of the run.

    Raises:
        ConfigError: the images do not give a temperature, or some of them must not set it.
        CheckpointError: the file cannot be written.
    """
    classifier, workdir = context.classifier, context.classifier.workdir
    assert workdir is not None
    if len(context) < LEAST:
        raise ConfigError(f"{FLAG}: {counted(len(context), 'image')}, too few for a temperature; give {LEAST} or more")
    for name, why in NEVER.items():
        known = frozenset(context.listed[name].digests if context.listed and name in context.listed else ())
        if not context.own and (number := sum(digest in known for digest in context.digests)):
            raise ConfigError(
                f"{FLAG}: {number:,} of the {len(context):,} images are of {name}: {why}; leave --data out, or give "
                "other images"
            )
    found = temperature_of(context)
    if not found.found:
        why = "every answer is right" if context.correct.all() else "the logits say nothing about these classes"
        raise ConfigError(f"{FLAG}: no temperature fits {context.name}: {why}; use other images, with --data DIR")
    calibration = Calibration(
        temperature=found.temperature,
        step=classifier.step,
        arrays=arrays_digest(classifier.meta),
        engine=classifier.engine.computation().engine,
        split=context.name,
        images=len(context),
        records=records_digest(context),
        before={"loss": found.loss_before, "calibration_error": found.error_before},
        after={"loss": found.loss_after, "calibration_error": found.error_after},
    )
    path = write_calibration(workdir, calibration)
    context.console.print(f"written: {path}, temperature {found.temperature:.3f}; --calibrated applies it")


def records_digest(context: Context) -> str:
    """SHA-256 (hex) of the content and the label of every record."""
    known = hashlib.sha256(b"".join(context.digests))
    known.update(np.asarray(context.labels, np.int32).tobytes())
    return known.hexdigest()
