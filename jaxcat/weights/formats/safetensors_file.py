"""Reads safetensors files: timm's, and jaxcat's canonical files, which describe themselves. Both are memory-mapped.

A canonical file has jaxcat's names and layout and, in its header's metadata under "jaxcat", JSON with `width`,
`preprocessing`, `pool_counts_padding`, `evaluation`, `classes` (of the top, or null) and `provenance`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxcat.errors import WeightsError, one_line
from jaxcat.system.files import replacing
from jaxcat.system.paths import plain_link
from jaxcat.weights.formats.contents import Tensor

KEY = "jaxcat"  # the key of jaxcat's description in the metadata
MAX_HEADER = 2**20  # bytes; that of a canonical file with 1000 class names has about 80,000
_DTYPES = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name in the file, and a canonical file's description, which is empty for any other file.

    Raises:
        WeightsError: the header is not valid, or does not fit the file.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise WeightsError(f"{path} has a safetensors header of {length:,} bytes; jaxcat's has about 80,000")
        encoded = file.read(length)
    try:
        # safe_open refuses gaps, overlaps, wrong lengths, and files of other formats; it takes no undecodable path
        with plain_link(path) as named, safe_open(named, framework="numpy"):
            header = json.loads(encoded)
        metadata = header.pop("__metadata__", {})
        description = json.loads(metadata[KEY]) if KEY in metadata else {}
        if not isinstance(description, dict):
            raise ValueError(f"its description is a {type(description).__name__} and not a table")
        data = np.asarray(np.memmap(path, np.uint8, "r"))[8 + length :]
        return {name: _tensor(entry, data) for name, entry in header.items()}, description
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors; it may be incomplete: {one_line(error)}") from error


def _tensor(entry: dict[str, Any], data: np.ndarray) -> Tensor:
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        return Tensor(shape, entry["dtype"].lower(), lambda: data[start:end])
    return Tensor(shape, dtype.name, lambda: data[start:end].view(dtype).reshape(shape).astype(np.float32, copy=False))


def write(path: Path, tensors: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    """Writes a canonical file, whole or not at all.

    Args:
        tensors: float32, by path in the network.
        description: plain JSON; see the top of this module.
    """
    try:
        with replacing(path) as aside:
            aside.write_bytes(save(tensors, metadata={KEY: json.dumps(description)}))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be written: {one_line(error)}") from error
