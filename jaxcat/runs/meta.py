"""The meta of a checkpoint, which describes it: one typed object, its schema on disk, and digests of every array.

The meta holds a digest of every array and one of the meta itself, because Orbax restores damaged bytes without an
error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcat.bottlenecks.engines.names import engine_of
from jaxcat.bottlenecks.versions import step_versions
from jaxcat.config import check_stored, completed
from jaxcat.errors import CheckpointError, ConfigError, OtherFormatError, one_line
from jaxcat.models.backbone import check_model
from jaxcat.models.preprocessing import Conventions
from jaxcat.objectives.metrics import METRICS
from jaxcat.runs.fields import has_ints, has_texts, is_entry
from jaxcat.runs.workdir import checkpoint, way_out
from jaxcat.system.files import json_digest
from jaxcat.wording import counted

FORMAT = 2

# Fields that every meta has on disk, with their types; checked because a workdir may come from anywhere.
SCHEMA = {
    "config": dict,
    "classes": list,
    "preprocessing": dict,
    "pool_counts_padding": bool,
    "provenance": dict,
    "frozen_digests": dict,
    "versions": dict,
    "history": list,
    "step": int,
    "digests": dict,
}


@dataclasses.dataclass(frozen=True)
class Records:
    """The records and batch size of a run, which must stay the same when it continues.

    Attributes:
        images: number of images in train.
        batch_size: over all devices and hosts.
        fingerprint: of names and labels, from `records.fingerprint`; None in runs of versions without it.
        rules: version of the rules that say which files are records and how they are named; 1 in runs without it.
        list_digest: SHA-256 (hex) of DIR/records.jsonl, see runs/records.py; None in runs without that file.
    """

    images: int
    batch_size: int
    fingerprint: str | None
    rules: int = 1
    list_digest: str | None = None


@dataclasses.dataclass(frozen=True)
class Meta:
    """The description of a checkpoint.

    Attributes:
        config: the configuration of the run or, if it has stages, of the stage; settings that it lacked are added.
        classes: names, in the order of the probabilities.
        conventions: how pixels are scaled, and the pooling rule.
        provenance: where the weights come from, plain JSON.
        frozen_digests: of the frozen tree.
        versions: of the packages that affect results, when the run began.
        step_versions: of decoding, resizing, augmentation and prefix, when the run began.
        metrics: names of the metrics besides the loss.
        records: the records and batch size of the run; None until they are known.
        history: an entry for each epoch so far.
        step, digests: of this checkpoint.
        stage: the number of the stage, from 1; 0 in a run without stages.
        request: the configuration of a run with stages as a whole; None in a run without.
    """

    config: ConfigDict
    classes: tuple[str, ...]
    conventions: Conventions
    provenance: dict[str, Any]
    frozen_digests: dict[str, str]
    versions: dict[str, str]
    step_versions: dict[str, int]
    metrics: tuple[str, ...]
    records: Records | None = None
    history: Sequence[dict] = ()
    step: int = 0
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stage: int = 0
    request: ConfigDict | None = None

    @property
    def asked(self) -> ConfigDict:
        """The configuration of the whole run."""
        return self.request or self.config

    def to_json(self) -> dict[str, Any]:
        """The meta as plain JSON with its own digest; `parse` is the inverse."""
        plain: dict[str, Any] = {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "classes": list(self.classes),
            **self.conventions.to_dict(),
            **{name: getattr(self, name) for name in ("provenance", "frozen_digests", "versions", "step_versions")},
            **{"metrics": list(self.metrics), "history": list(self.history)},
            **{"step": self.step, "digests": dict(self.digests)},
        }
        if self.records:
            length = {
                "pictures": self.records.images,  # this key has been in checkpoints since the first version
                "batch_size": self.records.batch_size,
                "records": self.records.fingerprint,
                "rules": self.records.rules,
                "list_digest": self.records.list_digest,
            }
            plain["length"] = {name: value for name, value in length.items() if value is not None}
        if self.request:
            plain |= {"stage": self.stage, "request": self.request.to_dict()}
        plain = json.loads(json.dumps(plain))
        return plain | {"meta_digest": meta_digest(plain)}


def parse(plain: Any) -> Meta:
    """The inverse of `Meta.to_json`, also for checkpoints from before a field existed.

    Raises:
        ValueError: a field is missing, has another type or an impossible value; the message names it.
    """
    if not isinstance(plain, dict):
        raise ValueError("not a JSON object")
    for name, kind in SCHEMA.items():
        if type(plain.get(name)) is not kind:
            raise ValueError(f"{name} is not a {kind.__name__}")
    length, metrics = plain.get("length"), plain.get("metrics", ["accuracy"])
    found_versions = plain.get("step_versions", dict.fromkeys(step_versions(), 1))
    if not all(isinstance(name, str) for name in plain["classes"]) or len(set(plain["classes"])) < 2:
        raise ValueError("classes are not at least two names")
    if len(set(plain["classes"])) < len(plain["classes"]):
        raise ValueError("a name occurs twice in classes")
    if not all(map(is_entry, plain["history"])):
        raise ValueError("history has an entry that describes no epoch")
    if length is not None and not has_ints(length, "pictures", "batch_size"):
        raise ValueError("length does not have two whole numbers")
    if length is not None and not (
        has_ints({"rules": 1} | length, "rules") and has_texts(length, "records", "list_digest")
    ):
        raise ValueError("length has rules or digests of a wrong type")
    if not isinstance(metrics, list) or not all(isinstance(name, str) and name in METRICS for name in metrics):
        raise ValueError(f"metrics are {str(metrics)[:80]}, which this version of jaxcat does not know")
    if not has_ints({"stage": 0} | plain, "stage") or ("stage" in plain) != ("request" in plain):
        raise ValueError("stage is not a whole number, or has no request")
    if not has_ints(found_versions, *step_versions()):
        raise ValueError("step_versions are not whole numbers")
    try:
        config = completed(plain["config"])
        check_stored(config)
        request = completed(plain["request"]) if "request" in plain else None
        if request:
            check_stored(request)
        engine_of(config.bottleneck.engine)
        check_model(config.model, image_size=config.data.image_size)
        conventions = Conventions.from_dict(plain)
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it describes an impossible network: {one_line(error)}") from error
    return Meta(
        config=config,
        classes=tuple(plain["classes"]),
        conventions=conventions,
        **{name: plain[name] for name in ("provenance", "frozen_digests", "versions", "history", "step", "digests")},
        step_versions=found_versions,
        metrics=tuple(metrics),
        records=_records(length) if length else None,
        stage=plain.get("stage", 0),
        request=request,
    )


def _records(length: Mapping[str, Any]) -> Records:
    """The records of a checked meta; the fields that older checkpoints lack get the values that fit them."""
    return Records(
        images=length["pictures"],
        batch_size=length["batch_size"],
        fingerprint=length.get("records"),
        rules=length.get("rules", 1),
        list_digest=length.get("list_digest"),
    )


def read_meta(workdir: Path, step: int) -> Meta:
    """The meta of one checkpoint.

    Raises:
        CheckpointError: it cannot be read, is damaged, or describes something impossible.
        OtherFormatError: another version of jaxcat wrote it.
    """
    path = checkpoint(workdir, step) / "meta" / "metadata"
    try:
        plain = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({one_line(error)}): {way_out(workdir, step)}") from error
    whole = isinstance(plain, dict) and plain.get("meta_digest") == meta_digest(plain)  # else its format means nothing
    if whole and plain.get("format") != FORMAT:
        raise OtherFormatError(
            f"{path}: format {plain.get('format')}, but this jaxcat reads {FORMAT}: use the jaxcat that wrote it, "
            "or another --workdir"
        )
    if not whole or plain.get("step") != step:
        raise CheckpointError(f"{path}: damaged on disk: {way_out(workdir, step)}")
    try:
        return parse(plain)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: not the description of a checkpoint: {error}: {way_out(workdir, step)}"
        ) from error


def pixel_changes(meta: Meta) -> list[str]:
    """The changes that make pixels differ from those that a run was trained on, such as `resize version 1 → 2`."""
    before, now = meta.step_versions, step_versions()
    return [
        f"{name} version {before[name]} → {now[name]}" for name in ("decode", "resize") if before[name] != now[name]
    ]


def digests(tree: Any) -> dict[str, str]:
    """Path of every array in a tree, such as `params/logits/kernel` → SHA-256 of its dtype, shape and bytes.

    Args:
        tree: arrays of NumPy or JAX in dictionaries, named tuples, tuples and lists, as a checkpoint has them.
    """
    result = {}
    for path, leaf in _leaves(tree, ()):
        array = np.ascontiguousarray(leaf)
        header = f"{array.dtype} {array.shape} ".encode()
        result["/".join(path)] = hashlib.sha256(header + array.tobytes()).hexdigest()
    return result


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each array with its path: JAX's `tree_flatten_with_path` for the kinds of trees that a checkpoint has."""
    if isinstance(tree, Mapping):
        inner = [(str(key), tree[key]) for key in sorted(tree)]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        inner = list(zip(tree._fields, tree, strict=True))
    elif isinstance(tree, (tuple, list)):
        inner = [(str(index), value) for index, value in enumerate(tree)]
    else:
        if tree is not None:  # None is an empty tree
            yield path, tree
        return
    for name, value in inner:
        yield from _leaves(value, (*path, name))


def check_digests(found: Mapping[str, str], wanted: Mapping[str, str], where: Path, way_out: str) -> None:
    """Raises CheckpointError if a digest differs from the one wanted."""
    damaged = [name for name, digest in found.items() if wanted.get(name) != digest]
    if damaged:
        number = counted(len(damaged), "array differs", "arrays differ")
        raise CheckpointError(f"{where}: damaged on disk, {number}, first {damaged[0]}: {way_out}")


def meta_digest(plain: Mapping[str, Any]) -> str:
    """SHA-256 of a meta without its own digest; needed because damaged JSON may still be valid, with another number."""
    return json_digest({key: value for key, value in plain.items() if key != "meta_digest"})


def best_epoch(history: Sequence[dict]) -> dict | None:
    """The entry with the highest validation accuracy, then the lowest loss, then the earliest.

    If validation was never measured, the latest.
    """
    return min(history, key=rank, default=None)


def rank(entry: dict) -> tuple[bool, float, float, int]:
    """Sort key for the entry of an epoch; the best epoch has the lowest."""
    if not is_validated(entry):
        return True, 0.0, 0.0, -entry["epoch"]
    return False, -entry["validation/accuracy"], entry["validation/loss"], entry["epoch"]


def is_validated(entry: Mapping[str, Any]) -> bool:
    """Whether validation was measured after this epoch; it was not if `data.validation_fraction` is 0."""
    return entry["validation/accuracy"] is not None
