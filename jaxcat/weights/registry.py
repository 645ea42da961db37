"""Published weights by name: where each file lies, how to recognise it, and what its numbers were trained to expect.

Different weights want different preprocessing and pooling, so both stand here beside the hash and travel with the
numbers ever after.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a uint8 RGB pixel becomes the network's input: (pixel / 255 - mean) / std, channel by channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_dict(self) -> dict[str, list[float]]:
        """As plain JSON, for a checkpoint."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises ValueError unless `mean` and `std` hold three numbers each."""
        (m0, m1, m2), (s0, s1, s2) = plain["mean"], plain["std"]
        return cls(mean=(float(m0), float(m1), float(m2)), std=(float(s0), float(s1), float(s2)))


MINUS_ONE_TO_ONE = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # Keras writes it x / 127.5 - 1
ZERO_TO_ONE = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

KERAS_LEGACY_H5 = "keras-legacy-h5"  # the layout weights/keras.py reads


@dataclasses.dataclass(frozen=True)
class WeightsSpec:
    """One published file.

    Attributes:
        name: what `--config.model.weights` calls it.
        url: where it is published.
        file: its name in the cache.
        size: bytes, or None where the publisher does not say.
        md5: hexadecimal, or None; at least one of md5 and sha256 is given.
        sha256: hexadecimal, or None.
        with_top: whether the 1000-class layer is in the file.
        layout: how the tensors are named and ordered; says which reader takes the file.
        preprocessing: what the network was trained to see.
        pool_counts_padding: see `inception.Options`.
        licence: short name of the licence of the weights.
        notice: who made them from what, and where the licence is stated.
        top1: published accuracy on the ImageNet validation set, per cent.
        top5: the same, any of five guesses.
        accuracy_source: where top1 and top5 are published.
    """

    name: str
    url: str
    file: str
    size: int | None
    md5: str | None
    sha256: str | None
    with_top: bool
    layout: str
    preprocessing: Preprocessing
    pool_counts_padding: bool
    licence: str
    notice: str
    top1: float
    top5: float
    accuracy_source: str


# URLs and md5 sums: keras/src/applications/inception_v3.py. Preprocessing: mode "tf" of its preprocess_input. Pooling:
# "same" average pooling in Keras divides by the number of real pixels.
_KERAS_NO_TOP = WeightsSpec(
    name="keras-imagenet",
    url="https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    file="inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    size=87_910_968,
    md5="bcbd6486424b2319ff4ef7d526e38f63",
    sha256=None,
    with_top=False,
    layout=KERAS_LEGACY_H5,
    preprocessing=MINUS_ONE_TO_ONE,
    pool_counts_padding=False,
    licence="MIT",
    notice="Inception-v3 weights of Keras Applications, trained on ImageNet by the Keras team and released under the "
    "MIT licence, says the README of github.com/fchollet/deep-learning-models, where they were first published. The "
    "ImageNet pictures have terms of their own.",
    top1=77.9,
    top5=93.7,
    accuracy_source="https://keras.io/api/applications/",
)
_KERAS_TOP = dataclasses.replace(
    _KERAS_NO_TOP,
    name="keras-imagenet-top",
    url=_KERAS_NO_TOP.url.replace("_notop.h5", ".h5"),
    file=_KERAS_NO_TOP.file.replace("_notop.h5", ".h5"),
    size=None,
    md5="9a0d58056eeedaa3f26cb7ebd46da564",
    with_top=True,
)

REGISTRY: dict[str, WeightsSpec] = {spec.name: spec for spec in (_KERAS_NO_TOP, _KERAS_TOP)}
