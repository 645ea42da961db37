"""The temperature of a trained head, fitted after training: DIR/calibration.json, used where `--calibrated` asks.

It holds the temperature, the step and the arrays that it was fitted for, and on which records. A file of another step
or of other arrays is refused. A head divided by it gives the same answers with other probabilities.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxcat.errors import CheckpointError, one_line
from jaxcat.objectives.temperature import HIGHEST, LOWEST
from jaxcat.runs.meta import Meta
from jaxcat.system.files import json_digest, regular_bytes, write_errors_as, write_text

FILE, VERSION = "calibration.json", 1
MOST_BYTES = 2**16
FIGURES = ("loss", "calibration_error")
# The fields on disk; checked because a workdir may come from anywhere.
SCHEMA: dict[str, type] = {
    **{"temperature": float, "step": int, "arrays": str, "engine": str, "split": str, "images": int, "records": str},
    **{"before": dict, "after": dict},
}
AGAIN = "fit it again with python -m jaxcat.report --calibrate"


class Calibration(NamedTuple):
    """A fitted temperature.

    Attributes:
        temperature: by which logits are divided.
        step: of the checkpoint.
        arrays: digest of the checkpoint's arrays, from `arrays_digest`.
        engine: which computed the logits that it was fitted to.
        split: the name of the split or folder that it was fitted on.
        images: number of its records.
        records: digest of their content and labels.
        before, after: log loss ("loss", nats) and "calibration_error" without it, and with that of the other folds.
    """

    temperature: float
    step: int
    arrays: str
    engine: str
    split: str
    images: int
    records: str
    before: Mapping[str, float]
    after: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, also for what is made from a calibrated classifier."""
        return {"version": VERSION, **self._asdict(), "before": dict(self.before), "after": dict(self.after)}


def arrays_digest(meta: Meta) -> str:
    """One digest of all arrays that a checkpoint's answers depend on: the head, trained blocks and frozen ones."""
    trained = {name: digest for name, digest in meta.digests.items() if name.startswith("model/")}
    return json_digest({"model": trained, "frozen": meta.frozen_digests})


def divided(params: Mapping[str, Any], temperature: float) -> dict[str, Any]:
    """Parameters by stage with the kernel and the bias of the logits divided by a temperature, in their dtype."""
    logits = {name: array / array.dtype.type(temperature) for name, array in params["logits"].items()}
    return {**params, "logits": logits}


def write_calibration(workdir: Path, calibration: Calibration) -> Path:
    """Writes calibration.json, completely or not at all; returns its path. Raises CheckpointError if it cannot be."""
    path = workdir / FILE
    with write_errors_as(CheckpointError, path):
        write_text(path, json.dumps(calibration.to_json(), indent=1) + "\n")
    return path


def read_calibration(workdir: Path, meta: Meta) -> Calibration:
    """The calibration of the checkpoint that `meta` describes.

    Raises:
        CheckpointError: there is none, it is damaged, or it is that of another step or of other arrays.
    """
    path = workdir / FILE
    try:
        found = _parsed(json.loads(regular_bytes(path, most=MOST_BYTES)))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing; python -m jaxcat.report --workdir {workdir} --calibrate fits a temperature and writes it"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be used: {one_line(error)}; {AGAIN}") from error
    if found.step != meta.step:
        raise CheckpointError(
            f"{path}: is of step {found.step}, and this is step {meta.step}: add --step {found.step}, or {AGAIN}"
        )
    if found.arrays != arrays_digest(meta):
        raise CheckpointError(f"{path}: was fitted to another network than step {meta.step} of this run; {AGAIN}")
    return found


def _parsed(plain: Any) -> Calibration:
    """A calibration from JSON. Raises ValueError if it is none; a workdir may come from anywhere."""
    if not isinstance(plain, dict) or plain.get("version") != VERSION:
        raise ValueError(f"it is no calibration of version {VERSION}")
    for name, kind in SCHEMA.items():
        if type(plain.get(name)) is not kind:
            raise ValueError(f"{name} is not a {kind.__name__}")
    temperature = plain["temperature"]
    if not LOWEST <= temperature <= HIGHEST:
        raise ValueError(f"a temperature of {temperature} is not from {LOWEST} to {HIGHEST:g}")
    for name in ("before", "after"):
        figures = plain[name]
        if set(figures) != set(FIGURES) or not all(map(_is_figure, figures.values())):
            raise ValueError(f"{name} does not have the figures {', '.join(FIGURES)}")
    return Calibration(**{name: plain[name] for name in SCHEMA})


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
