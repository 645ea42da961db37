"""Weights files of a narrow random network in every layout, for the tests of reading them."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import save_file

from jaxcat.models.preprocessing import Conventions
from jaxcat.weights.formats import safetensors_file
from jaxcat.weights.keras_names import KERAS_3_ORDER, UNITS
from jaxcat.weights.load import Pretrained, load_pretrained
from jaxcat.weights.strict import expected
from jaxcat.weights.torch_names import TORCH_UNITS

WIDTH = 0.05  # a network small enough to write to disk in every test


def load(source: Path | str, **options) -> Pretrained:
    """`load_pretrained` of a file of this width, whole."""
    return load_pretrained(str(source), **({"width": WIDTH} | options))


_LEGACY = {
    "conv/kernel": ("conv2d", "kernel"),
    "bn/bias": ("batch_normalization", "beta"),
    "bn/mean": ("batch_normalization", "moving_mean"),
    "bn/var": ("batch_normalization", "moving_variance"),
}
_KERAS_3 = {
    "conv/kernel": ("conv2d", 0),
    "bn/bias": ("batch_normalization", 0),
    "bn/mean": ("batch_normalization", 1),
    "bn/var": ("batch_normalization", 2),
}
_TORCH = {
    "conv/kernel": "conv.weight",
    "bn/scale": "bn.weight",
    "bn/bias": "bn.bias",
    "bn/mean": "bn.running_mean",
    "bn/var": "bn.running_var",
}


def random_network(seed: int = 0) -> dict[str, np.ndarray]:
    """A whole narrow Inception-v3 by path, all values in [0, 1)."""
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape, np.float32) for name, shape in expected("inception_v3", WIDTH).items()}


def _split(path: str) -> tuple[str, str]:
    stage, unit, tensor = path.split("/", 2)
    return f"{stage}/{unit}", tensor


def dataset_name(path: str, *, first: int, suffix: str = ":0") -> str:
    """`stem/conv1/bn/bias` → `batch_normalization_1/batch_normalization_1/beta:0`, as Keras 2 writes it."""
    unit, tensor = _split(path)
    kind, weight = _LEGACY[tensor]
    number = UNITS.index(unit) + first
    layer = f"{kind}_{number}" if number else kind
    return f"{layer}/{layer}/{weight}{suffix}"


def write_legacy(path: Path, network: dict[str, np.ndarray], *, first: int = 1, **top: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in network.items():
            file[dataset_name(name, first=first)] = array
        for name, array in top.items():
            file[f"predictions/predictions/{name}:0"] = array
    return path


def write_keras_3(path: Path, network: dict[str, np.ndarray], *, root: str = "layers") -> Path:
    groups = {UNITS[place]: group for group, place in enumerate(KERAS_3_ORDER)}
    with h5py.File(path, "w") as file:
        for name, array in network.items():
            unit, tensor = _split(name)
            kind, variable = _KERAS_3[tensor]
            group = f"_{groups[unit]}" if groups[unit] else ""
            file[f"{root}/{kind}{group}/vars/{variable}"] = array
    return path


def write_keras_archive(path: Path, network: dict[str, np.ndarray], *, compression: int = zipfile.ZIP_STORED) -> Path:
    weights = write_keras_3(path.with_name("member.h5"), network)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps({"class_name": "Lambda", "module": "os"}))
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return path


def torch_state(network: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same numbers under torchvision's names, in its order of axes, with a scale of one unless there is another."""
    names = {ours: theirs for theirs, ours in TORCH_UNITS.items()}
    state = {f"{unit}.bn.num_batches_tracked": np.int64([0]) for unit in TORCH_UNITS}
    for path, array in network.items():
        unit, tensor = _split(path)
        state[f"{names[unit]}.{_TORCH[tensor]}"] = np.ascontiguousarray(
            array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        )
        if tensor == "bn/mean" and f"{unit}/bn/scale" not in network:
            state[f"{names[unit]}.bn.weight"] = np.ones_like(array)
    state["AuxLogits.fc.weight"] = np.ones((3, 2), np.float32)
    return state


def golden_state() -> dict[str, np.ndarray]:
    """A state dict of the full width with a top, whose activations stay of order one in every block.

    Every tensor is drawn from a generator seeded with its own name in torch, so two names that change places show.
    """

    def draw(name: str, array: np.ndarray) -> np.ndarray:
        uniform = np.random.default_rng(zlib.crc32(name.encode())).random(array.shape, np.float32)
        if name.endswith(("bn.weight", "running_var")):
            return uniform + np.float32(0.5)
        limit = 0.02 if name == "fc.weight" else 0.3
        if name.endswith("conv.weight"):
            limit = math.sqrt(6 / math.prod(array.shape[1:]))  # He, uniform
        return (2 * uniform - 1) * np.float32(limit)

    whole = torch_state({name: np.zeros(shape, np.float32) for name, shape in expected("inception_v3", 1.0).items()})
    kept = {name: array for name, array in whole.items() if array.dtype == np.float32 and not name.startswith("Aux")}
    top = {"fc.weight": np.zeros((1000, 2048), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    return {name: draw(name, array) for name, array in (kept | top).items()}


def write_torch_safetensors(path: Path, network: dict[str, np.ndarray], **more: np.ndarray) -> Path:
    save_file(torch_state(network) | more, path)
    return path


def write_pth(path: Path, network: dict[str, np.ndarray], *, zipped: bool = True) -> Path:
    """Needs torch."""
    import torch

    state = {name: torch.from_numpy(array) for name, array in torch_state(network).items()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


def write_canonical(path: Path, network: dict[str, np.ndarray], **changes: object) -> Path:
    description = {
        "width": WIDTH,
        **Conventions(pool_counts_padding=True).to_dict(),
        "evaluation": None,
        "classes": None,
        "provenance": {"source": "a test"},
    }
    safetensors_file.write(path, network, description | changes)
    return path


WRITERS = {
    "keras legacy h5": write_legacy,
    "keras 3 weights.h5": write_keras_3,
    "keras archive": write_keras_archive,
    "torch safetensors": write_torch_safetensors,
    "canonical safetensors": write_canonical,
    "torch pth": write_pth,
}
