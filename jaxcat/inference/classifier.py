"""A trained classifier, restored from its workdir alone.

classifier = jaxcat.load("runs/mixed7")
probabilities = classifier.predict(["cat.jpg", pixels])       # (2, number of classes)
classifier.classes[probabilities[0].argmax()]
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array
from PIL import Image

from jaxcat.data.images.decoding import decode, decoding_of
from jaxcat.data.images.resizing import resize
from jaxcat.errors import ConfigError, DataError
from jaxcat.models.backbone import pooled_blocks
from jaxcat.models.network import Network, Tree
from jaxcat.runs.meta import Meta
from jaxcat.runs.restore import restore
from jaxcat.system.compilation import jit
from jaxcat.system.devices import make_mesh, padded_batch_size, replicated, to_global
from jaxcat.system.paths import expanded
from jaxcat.training.start import pixel_changes
from jaxcat.training.steps import boundary_input, make_eval_step
from jaxcat.wording import counted, first_to_last, printable

BATCH_SIZE = 32
NAMED = 10  # classes whose names the classifier shows
logger = logging.getLogger(__name__)


def load(workdir: str | os.PathLike, step: str | int = "best") -> Classifier:
    """Restores the classifier that a training run left in `workdir`.

    Args:
        step: "best" (highest validation accuracy, then lowest loss, then earliest; the latest if the run holds
            nothing out), "latest" or a step number.

    Raises:
        CheckpointError: no run there, no such step, or damaged files.
    """
    run = restore(workdir, step)
    if changes := pixel_changes(run.meta):
        logger.warning("%s: pixels may differ from those the run was trained on: %s", workdir, ", ".join(changes))
    return Classifier(run.network, run.meta, frozen=run.frozen, trained=run.trained)


class Classifier:
    """A network with its parameters, class names and preprocessing.

    Attributes:
        classes: names, in the order of the probabilities.
        config: the configuration of the run.
        meta: the description of the checkpoint: step, provenance of the weights, versions, history.
        frozen, trained: `{"params", "stats"}` of the prefix and of the suffix, on the devices.
        params, stats: parameters and BatchNorm statistics of all stages, as nested dictionaries of arrays.
    """

    def __init__(self, network: Network, meta: Meta, *, frozen: Tree, trained: Tree):
        self.network, self.meta, self.frozen, self.trained = network, meta, frozen, trained
        self.classes, self.config = meta.classes, meta.config
        self.mesh = make_mesh()

    def __repr__(self) -> str:
        names = ", ".join(printable(name) for name in self.classes[:NAMED]) + (", …" * (len(self.classes) > NAMED))
        return (
            f"<jaxcat classifier: {counted(len(self.classes), 'class', 'classes')} ({names}), "
            f"{first_to_last(pooled_blocks(self.config.model))} of {self.config.model.backbone}, step {self.step}>"
        )

    @property
    def params(self) -> Tree:
        return {**self.frozen["params"], **self.trained["params"]}

    @property
    def stats(self) -> Tree:
        return {**self.frozen["stats"], **self.trained["stats"]}

    @property
    def step(self) -> int:
        return self.meta.step

    @functools.cached_property
    def _step(self) -> Callable[..., tuple[Array, dict[str, Array]]]:
        step = make_eval_step(self.network, self.meta.metrics)
        return jit(step, out_shardings=replicated(self.mesh))

    @functools.cached_property
    def _feature_step(self) -> Callable[..., tuple[Array, Array]]:
        def step(trained: Tree, stats: Tree, frozen: Tree, batch: dict[str, Array]) -> tuple[Array, Array]:
            return self.network.logits_and_features(trained, stats, boundary_input(self.network, frozen, batch))

        return jit(step, out_shardings=replicated(self.mesh))

    def evaluate_batch(self, batch: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """A global batch, as data.batches makes it → (logits (B, outputs), masked sums)."""
        return self._step(self.trained["params"], self.trained["stats"], self.frozen, batch)

    def predict(self, images: Sequence[Any], *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Class probabilities, float32 (number of images, number of classes).

        Args:
            images: paths, encoded bytes, Pillow images, or arrays (H, W, 3) or (H, W) of uint8 or uint16, in any
                mixture.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        pixels = self._prepared(images, "predict")
        return np.concatenate(
            [np.zeros((0, len(self.classes)), np.float32), *self.predict_pixels(pixels, batch_size=batch_size)]
        )

    def features(self, images: Sequence[Any], *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """The pooled features that the head sees, float32 (number of images, number of features).

        They are the outputs of the blocks that `model.pool_from` names, pooled as `model.pool` and `model.pool_grid`
        say and put one after the other; with `model.pool=flatten`, all values of the maps.

        Args:
            images: as for `predict`.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        pixels = self._prepared(images, "features")
        rows = [features for _, features in self.outputs_of_pixels(pixels, batch_size=batch_size)]
        return np.concatenate([np.zeros((0, self.network.features), np.float32), *rows])

    def _prepared(self, images: Sequence[Any], method: str) -> Iterator[np.ndarray]:
        """The images, decoded and resized one by one."""
        if _is_single(images):
            raise TypeError(f"{method} takes a list of images: {method}([image])")
        return (self.prepare(image, f"image {i}") for i, image in enumerate(images))

    def prepare(self, image: Any, name: str = "image") -> np.ndarray:
        """Decodes and resizes an image as in training: uint8 (image_size, image_size, 3)."""
        if isinstance(image, (str, os.PathLike)):
            image, name = _path(image), os.fspath(image)
        elif isinstance(image, (bytearray, memoryview)):
            image = bytes(image)
        elif not isinstance(image, (bytes, np.ndarray, Image.Image)):
            if not hasattr(image, "__array__"):  # as the arrays of JAX and torch have
                raise DataError(
                    f"{name}: {repr(image)[:60]} ({type(image).__name__}) is no image; give the path of a file, its "
                    "bytes, a Pillow image, or an array of uint8 (H, W, 3)"
                )
            image = np.asarray(image)
        data = self.config.data
        return resize(decode(image, name, decoding_of(self.config)), data.image_size, mode=data.resize)

    def predict_pixels(self, pixels: Iterable[np.ndarray], *, batch_size: int = BATCH_SIZE) -> Iterator[np.ndarray]:
        """Prepared images → probabilities float32 (b, classes), an array for each `batch_size` images."""
        for count, batch in self._padded(pixels, batch_size):
            logits, _ = self.evaluate_batch(batch)
            yield probabilities(np.asarray(logits)[:count])

    def outputs_of_pixels(
        self, pixels: Iterable[np.ndarray], *, batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same, and what the head sees: (probabilities float32 (b, classes), features float32 (b, features))."""
        for count, batch in self._padded(pixels, batch_size):
            logits, features = self._feature_step(self.trained["params"], self.trained["stats"], self.frozen, batch)
            yield probabilities(np.asarray(logits)[:count]), np.asarray(features)[:count]

    def _padded(self, pixels: Iterable[np.ndarray], batch_size: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """Yields the number of images in each batch, and the batch on the devices.

        All batches have the same compiled shape. If there is only one, it is padded to the next power of two.
        """
        whole, single, remaining = padded_batch_size(batch_size, self.mesh), True, iter(pixels)
        while rows := list(itertools.islice(remaining, batch_size)):
            enough = padded_batch_size(1 << (len(rows) - 1).bit_length(), self.mesh)
            padded = min(whole, enough) if single else whole
            image = np.zeros((padded, *rows[0].shape), np.uint8)
            image[: len(rows)] = rows
            batch = {"image": image, "label": np.zeros(padded, np.int32), "mask": np.arange(padded) < len(rows)}
            yield len(rows), to_global(self.mesh, batch)
            single = False


def _path(image: str | os.PathLike) -> Path:
    """The path of an image; a Path is taken as it is, since `~` in it was meant."""
    if isinstance(image, Path):
        return image
    try:
        return expanded(image)
    except ConfigError as error:
        raise DataError(str(error)) from error


def _is_single(images: Any) -> bool:
    """Whether this is one image, or nothing to iterate over, where a list of images is wanted."""
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)) or not _is_iterable(images):
        return True
    shape = getattr(images, "shape", None)
    return shape is not None and (len(shape) < 3 or (len(shape) == 3 and shape[2] in (1, 3, 4)))


def _is_iterable(images: Any) -> bool:
    return isinstance(images, Iterable) or hasattr(images, "__getitem__")


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Logits (N, outputs) → float32 (N, classes); for one logit z, the columns are 1 - sigmoid(z) and sigmoid(z)."""
    both = with_zero_logit(logits.astype(np.float64))
    # softmax, not SciPy's: importing that takes 0.15 s, a tenth of the time to classify one image
    powers = np.exp(both - both.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def with_zero_logit(logits: np.ndarray) -> np.ndarray:
    """One logit z → two, (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)); more logits come back as they are."""
    return np.pad(logits, ((0, 0), (1, 0))) if logits.shape[1] == 1 else logits
