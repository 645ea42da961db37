"""Whether a run can have a temperature, and the one in its calibration.json."""

from __future__ import annotations

from pathlib import Path

from jaxcat.errors import ConfigError
from jaxcat.runs.calibration import Calibration, read_calibration
from jaxcat.runs.meta import Meta
from jaxcat.training.optim import is_exact


def calibration_of(folder: Path, meta: Meta) -> Calibration:
    """The run's calibration. Raises ConfigError if its head needs none, or CheckpointError if there is none."""
    check_calibratable(meta, "--calibrated")
    return read_calibration(folder, meta)


def check_calibratable(meta: Meta, flag: str) -> None:
    """Raises ConfigError if the head of a run is solved: its kernel is calibrated by leave-one-out already."""
    if is_exact(meta.config):
        raise ConfigError(
            f"{flag}: the head of this run is solved, and the scale of its kernel was fitted by leave-one-out: it has "
            f"no temperature; leave {flag} out"
        )
