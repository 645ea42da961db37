"""Loads pretrained weights of a backbone, from a published file or a file of the user's."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from jaxcat.errors import ConfigError, WeightsError
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.preprocessing import Conventions
from jaxcat.system.paths import typed
from jaxcat.weights import description, strict
from jaxcat.weights.description import Description
from jaxcat.weights.download import fetch, remember
from jaxcat.weights.formats.contents import Contents, Tensor
from jaxcat.weights.formats.detection import HDF5, KERAS_ARCHIVE, open_tensors
from jaxcat.weights.keras_names import from_keras_3, from_legacy, is_keras_3
from jaxcat.weights.registry import CANONICAL, REGISTRY, Evaluation, WeightsSpec
from jaxcat.weights.torch_names import from_torch


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Pretrained weights, and what they need besides their values.

    Attributes:
        params: nested dicts stage → … → float32 array, as `nnx.to_pure_dict` gives for the stages' `nnx.Param`. With
            the published top, its layers come too, `logits` last: `kernel` (inputs, outputs) and `bias` (outputs,).
            Arrays of a safetensors file may be read-only views of it.
        stats: the same for `nnx.BatchStat`; {} for a block without statistics.
        conventions: preprocessing of the images, and the pooling rule.
        provenance: where the weights come from, as plain JSON for the checkpoint.
        evaluation: how the published accuracy was measured, if that is known.
        classes: names of the top's 1,000 outputs, empty without a top.
        backbone: the backbone of the weights, a name in `BACKBONES`.
    """

    params: dict[str, Any]
    stats: dict[str, Any]
    conventions: Conventions
    provenance: dict[str, Any]
    evaluation: Evaluation | None
    classes: tuple[str, ...]
    backbone: str


def load_pretrained(
    weights: str,
    *,
    backbone: str | None = "inception_v3",
    cut: str = "",
    width: float = 1.0,
    with_top: bool = False,
    like: str | None = None,
) -> Pretrained:
    """Loads the weights of a backbone from a published file (downloaded once) or a file of the user's.

    Args:
        weights: a name in `REGISTRY` or the path of a file in one of the layouts there. A canonical file
            (in jaxcat's own layout) says how it was trained. Any other file is taken to be trained as its framework's
            own weights were.
        backbone: a name in `BACKBONES`, or None to accept any of them.
        cut: the last stage wanted; later ones must be in the file, but their values are not read. "" means the
            backbone's last stage.
        width: the width of the network; published files have 1.0.
        with_top: whether to load the layers of the 1,000 classes too, which needs the whole backbone.
        like: a name in `REGISTRY` whose conventions the file follows, if it does not follow its framework's.

    Raises:
        WeightsError: there is no such file or name, a download failed, the file is of another format, backbone or
            network, a canonical file has an impossible description, or tensors are missing, superfluous, misshapen or
            impossible. The message shows tensors as a diff of expected (-) and found (+).
    """
    spec = _spec(weights, with_top=with_top)
    if spec:
        _check_backbone(repr(weights), spec.backbone, wanted=backbone)
        backbone = spec.backbone
    last = BACKBONES[backbone].stages[-1] if backbone else ""
    if with_top and cut not in ("", last):
        raise WeightsError(f"the 1000-class top reads the output of {last}: set --config.model.cut={last}, not {cut!r}")
    path = _published(spec, width=width, with_top=with_top) if spec else _existing(weights)
    with open_weights(path, backbone=backbone, label_offset=spec.label_offset if spec else 0) as contents:
        if spec and contents.layout != spec.layout:
            raise WeightsError(f"{path} has the layout {contents.layout}, {spec.name!r} is published in {spec.layout}")
        about = description.of_file(contents, spec or description.like(like), path=path)
        table = BACKBONES[contents.backbone]
        blocks = table.up_to(cut or table.stages[-1])
        kept = [*blocks, *((*table.top.hidden, "logits") if with_top else ())]
        arrays = strict.read(contents, path=path, width=width, with_top=with_top, stages=kept)
    scale = strict.fold_scale(arrays)
    stats = {name: array for name, array in arrays.items() if name.endswith(("/bn/mean", "/bn/var"))}
    params = _tree({name: array for name, array in arrays.items() if name not in stats}, kept)
    provenance = _provenance(weights, path, spec=spec, contents=contents, about=about)
    if spec:
        remember(spec, path, provenance["sha256"])
    return Pretrained(
        params=params,
        stats=dict.fromkeys(blocks, {}) | _tree(stats, kept),
        conventions=about.conventions,
        provenance=provenance | ({"batch_norm_scale": scale} if scale else {}),
        evaluation=about.evaluation,
        classes=about.classes if with_top else (),
        backbone=contents.backbone,
    )


@contextlib.contextmanager
def open_weights(path: Path, *, backbone: str | None = None, label_offset: int = 0) -> Iterator[Contents]:
    """The contents of `path` under jaxcat's names. Values can be read only inside the `with`.

    Args:
        path: the file; its format is detected from its content.
        backbone: the backbone whose names the tensors have. If None, one that is whole in the file, else the first.
        label_offset: leading outputs of the top to drop.

    Raises:
        WeightsError: the format of the file is unknown, the file is damaged, it does something that no weights file
            does, or it holds the whole of another backbone.
    """
    with open_tensors(path, strict.limits(backbone)) as (kind, found, about):
        named = partial(_named, kind, found, about, label_offset=label_offset)
        contents = named(backbone or next(iter(BACKBONES)))
        if not strict.is_whole(contents):
            for other in map(named, BACKBONES):
                if strict.is_whole(other):
                    _check_backbone(str(path), other.backbone, wanted=backbone)
                    contents = other
        yield contents


def _named(kind: str, found: dict[str, Tensor], about: dict[str, Any], backbone: str, *, label_offset: int) -> Contents:
    """The tensors of a file under jaxcat's names, taken to be those of `backbone`."""
    if about:
        return Contents(CANONICAL, backbone, found, description=about)
    if kind not in (HDF5, KERAS_ARCHIVE):
        return from_torch(found, backbone, label_offset=label_offset)
    return from_keras_3(found, backbone) if is_keras_3(found) else from_legacy(found, backbone)


def _check_backbone(what: str, found: str, *, wanted: str | None) -> None:
    if wanted not in (found, None):
        raise WeightsError(f"{what} are weights of {BACKBONES[found].title}; set --config.model.backbone={found}")


def _tree(arrays: dict[str, np.ndarray], stages: list[str]) -> dict[str, Any]:
    tree = unflatten_dict(arrays, sep="/")
    return {stage: tree[stage] for stage in stages if stage in tree}


def _spec(weights: str, *, with_top: bool) -> WeightsSpec | None:
    """The registry's entry for `weights`; if the top is asked for, the entry of the file with the top."""
    spec = REGISTRY.get(weights)
    if spec and with_top and not spec.with_top:
        return REGISTRY.get(f"{weights}-top", spec)
    return spec


def _published(spec: WeightsSpec, *, width: float, with_top: bool) -> Path:
    """The verified file. Raises WeightsError before any download if the file cannot serve the request."""
    if width != 1.0:
        raise WeightsError(
            f"the weights {spec.name!r} are of width 1.0, the network has {width:g}: set --config.model.width=1.0, or "
            "--config.model.weights=none to train from scratch"
        )
    if with_top and not spec.with_top:
        tops = ", ".join(name for name, other in REGISTRY.items() if other.with_top)
        raise WeightsError(f"the weights {spec.name!r} have no 1000-class top; these have: {tops}")
    return fetch(spec, limit=strict.limits(spec.backbone).size)


def find_file(weights: str) -> Path:
    """The file of a name (downloaded first if needed) or of a path. Raises WeightsError if there is none."""
    spec = REGISTRY.get(weights)
    return _published(spec, width=1.0, with_top=False) if spec else _existing(weights)


def _existing(weights: str) -> Path:
    try:
        path = typed(weights)
    except ConfigError as error:
        raise WeightsError(f"--config.model.weights={error}") from error
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        hint = ""
        if (path / "checkpoints").is_dir():
            of_train = f"--config.init_from={weights} --config.model.weights=none"
            hint = f"; a run is used by predict with --workdir {weights}, and by train with {of_train}"
        raise WeightsError(f"weights {weights!r} is a directory: give a file or a name{hint}")
    near = difflib.get_close_matches(weights, REGISTRY, n=2)
    raise WeightsError(
        f"weights {weights!r} is neither a file nor the name of published weights ({', '.join(REGISTRY)}). "
        + (f"Did you mean {' or '.join(near)}? " if near else "")
        + "Give the path of a file that exists, or one of the names"
    )


def _provenance(
    weights: str, path: Path, *, spec: WeightsSpec | None, contents: Contents, about: Description
) -> dict[str, Any]:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    known = {
        "source": weights,
        "file": path.name,
        "sha256": sha256,
        "backbone": contents.backbone,
        "layout": contents.layout,
        **about.conventions.to_dict(),
        "evaluation": about.evaluation.to_dict() if about.evaluation else None,
    }
    if contents.left_out:
        known["left_out"] = list(contents.left_out)
    if contents.layout == CANONICAL:
        known["before"] = contents.description.get("provenance")
    if spec is None:
        return known
    published = ("url", "licence", "notice", "top1", "top5", "accuracy_source", "hash_source")
    return known | {name: getattr(spec, name) for name in published}
