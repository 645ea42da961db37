"""What a weights file holds, before its values are read: the common form that every reader gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_TENSORS = 20_000  # in one file; a Keras model with its optimizer's slots has about 1,300


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a file of one backbone may make its reader do; see `strict.limits`.

    Attributes:
        values: in one array.
        size: bytes of the file, or of the weights inside an archive.
    """

    values: int
    size: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        shape: its sizes; in our order of axes once it is one of `Contents`.
        dtype: name as numpy or torch give it; readers leave it to the strict load to refuse what is no floating point.
        read: gives the values, float32 and of `shape`. Not called before the shape is known to be right, so a file that
            declares huge arrays costs nothing.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def floating(self) -> bool:
        return self.dtype in ("float16", "bfloat16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class Contents:
    """A file's tensors under our names.

    Attributes:
        layout: one of the layouts in weights/registry.py.
        backbone: the network by whose names the tensors were understood; a name in `BACKBONES`.
        tensors: by path in the network, such as `stem/conv1/conv/kernel`; the top's last layer is `logits/…`. What has
            no place there keeps its name in the file, in brackets. Nothing is checked for completeness.
        left_out: names of what stands beside the network and is not read, such as the layers of somebody's head.
        description: what a file of ours says of itself, else empty.
    """

    layout: str
    backbone: str
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...] = ()
    description: dict[str, Any] = dataclasses.field(default_factory=dict)
