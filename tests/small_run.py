"""A run of three epochs, and what is compared of it."""

from __future__ import annotations

import json
from pathlib import Path

import small
from ml_collections import ConfigDict

from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import workdir as workdirs

TIMES = ("images_per_second", "data_wait_seconds", "seconds")


def metrics(workdir: Path) -> list[dict]:
    """Its metrics.jsonl, without times."""
    entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in TIMES} for entry in entries]


def config(folder: Path, **changes) -> ConfigDict:
    """Three epochs of three steps on the images of `small.image_folder`, from scratch."""
    result = small.tiny_config(folder)
    result.model.train_from, result.model.train_bn, result.epochs = "mixed0", True, 3
    result.update_from_flattened_dict(changes)
    return result


def outcome(workdir: Path) -> tuple[list[dict], dict]:
    """What two runs that are the same have in common: metrics and digests of all arrays at the end."""
    return metrics(workdir), checkpoint_meta.read_meta(workdir, workdirs.steps(workdir)[-1]).digests
