"""The contents of a weights file before its values are read: the common form that every reader returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_TENSORS = 20_000  # in one file; a Keras model with its optimizer's slots has about 1,300


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits for reading a file of one backbone; see `strict.limits`.

    Attributes:
        values: most values in one array.
        size: most bytes of the file, or of the weights inside an archive.
    """

    values: int
    size: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        shape: the sizes of its axes; in `Contents`, in jaxcat's order of axes.
        dtype: its name in NumPy or torch. The strict load, not the reader, refuses a dtype that is not floating-point.
        read: gives the values, float32 and of `shape`. It is not called before the shape is known to be right, so a
            file that declares huge arrays costs nothing.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def floating(self) -> bool:
        return self.dtype in ("float16", "bfloat16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class Contents:
    """A file's tensors under jaxcat's names.

    Attributes:
        layout: one of the layouts in weights/registry.py.
        backbone: the backbone whose names the tensors were taken to have; a name in `BACKBONES`.
        tensors: by path in the network, such as `stem/conv1/conv/kernel`; the top's last layer is `logits/…`. A
            tensor without such a path keeps its name in the file, in brackets. Completeness is not checked.
        left_out: names of tensors beside the network, which are not read, such as those of a user's head.
        description: how a canonical file describes itself; empty for any other file.
    """

    layout: str
    backbone: str
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...] = ()
    description: dict[str, Any] = dataclasses.field(default_factory=dict)
