"""`Conventions`: how pixels are scaled for a backbone, and the pooling rule that its weights need.

This module imports no framework, because commands read tables of published weights before they import JAX.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

Channels = Literal["RGB", "BGR"]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a uint8 RGB pixel becomes the network's input: (pixel / 255 - mean) / std, channel by channel.

    Attributes:
        mean, std: of the channels, in the order in which the network reads them.
        channels: that order. Networks from Caffe, such as VGG, read BGR.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Channels = "RGB"

    def __str__(self) -> str:
        mean, std = (
            f"{values[0]:g}" if len(set(values)) == 1 else f"[{', '.join(f'{value:g}' for value in values)}]"
            for values in (self.mean, self.std)
        )
        shifted = "x/255" if mean == "0" else f"(x/255 - {mean})"
        return (
            shifted
            + ("" if std == "1" else f" / {std}")
            + ("" if self.channels == "RGB" else f", channels {self.channels}")
        )

    def normalize(self, images: Any) -> Any:
        """uint8 (…, 3) RGB, of NumPy or JAX → float32 (…, 3), the network's input."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        ordered = images if self.channels == "RGB" else images[..., ::-1]
        return (ordered.astype(np.float32) / 255 - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON; leaves out the order RGB, as in files from before there was another order."""
        plain: dict[str, Any] = {"mean": list(self.mean), "std": list(self.std)}
        return plain if self.channels == "RGB" else plain | {"channels": self.channels}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises ValueError unless it has three numbers each and a known order."""
        (m0, m1, m2), (s0, s1, s2) = plain["mean"], plain["std"]
        channels = plain.get("channels", "RGB")
        if channels not in ("RGB", "BGR"):
            raise ValueError(f"channels={channels!r}, which must be RGB or BGR")
        mean, std = (float(m0), float(m1), float(m2)), (float(s0), float(s1), float(s2))
        return cls(mean, std, channels)


MINUS_ONE_TO_ONE = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # Keras writes it x / 127.5 - 1
ZERO_TO_ONE = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
# Mode "caffe" of keras/src/applications/imagenet_utils.py: BGR minus ImageNet's means in grey levels, not scaled.
BGR_MINUS_MEANS = Preprocessing(
    mean=(103.939 / 255, 116.779 / 255, 123.68 / 255), std=(1 / 255, 1 / 255, 1 / 255), channels="BGR"
)


@dataclasses.dataclass(frozen=True)
class Conventions:
    """What one must know about the weights of a backbone to use them.

    Attributes:
        preprocessing: how pixels were scaled in training.
        pool_counts_padding: whether average pooling at the border divides by the whole window, padding included (as for
            torch's weights), or by the number of real pixels (as for Keras's).
    """

    preprocessing: Preprocessing = MINUS_ONE_TO_ONE
    pool_counts_padding: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The conventions as plain JSON."""
        return {"preprocessing": self.preprocessing.to_dict(), "pool_counts_padding": self.pool_counts_padding}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Conventions:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(Preprocessing.from_dict(plain["preprocessing"]), bool(plain["pool_counts_padding"]))
