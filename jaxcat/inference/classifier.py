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
from scipy.special import softmax

from jaxcat.data.decoding import decode
from jaxcat.data.resizing import resize
from jaxcat.models.network import Network, Tree
from jaxcat.runs.meta import Meta
from jaxcat.runs.restore import restore
from jaxcat.system.compilation import jit
from jaxcat.system.devices import make_mesh, padded_batch_size, replicated, to_global
from jaxcat.training.start import pixel_changes
from jaxcat.training.steps import make_eval_step

BATCH_SIZE = 32
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

    def evaluate_batch(self, batch: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """A global batch, as data.batches makes it → (logits (B, outputs), masked sums)."""
        return self._step(self.trained["params"], self.trained["stats"], self.frozen, batch)

    def predict(self, images: Sequence[Any], *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Class probabilities, float32 (number of images, number of classes).

        Args:
            images: paths, encoded bytes, Pillow images or uint8 arrays (H, W, 3), in any mixture.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        if isinstance(images, (str, bytes, os.PathLike)):
            raise TypeError("predict takes a list of images: predict([image])")
        pixels = (self.prepare(image, f"image {i}") for i, image in enumerate(images))
        return np.concatenate(
            [np.zeros((0, len(self.classes)), np.float32), *self.predict_pixels(pixels, batch_size=batch_size)]
        )

    def prepare(self, image: Any, name: str = "image") -> np.ndarray:
        """Decodes and resizes an image as in training: uint8 (image_size, image_size, 3)."""
        if isinstance(image, (str, os.PathLike)):
            image, name = Path(image), os.fspath(image)
        data = self.config.data
        return resize(decode(image, name), data.image_size, mode=data.resize)

    def predict_pixels(self, pixels: Iterable[np.ndarray], *, batch_size: int = BATCH_SIZE) -> Iterator[np.ndarray]:
        """Prepared images → probabilities float32 (b, classes), an array for each `batch_size` images.

        All batches have the same compiled shape. If there is only one, it is padded to the next power of two.
        """
        whole, single, remaining = padded_batch_size(batch_size, self.mesh), True, iter(pixels)
        while rows := list(itertools.islice(remaining, batch_size)):
            enough = padded_batch_size(1 << (len(rows) - 1).bit_length(), self.mesh)
            padded = min(whole, enough) if single else whole
            image = np.zeros((padded, *rows[0].shape), np.uint8)
            image[: len(rows)] = rows
            batch = {"image": image, "label": np.zeros(padded, np.int32), "mask": np.arange(padded) < len(rows)}
            logits, _ = self.evaluate_batch(to_global(self.mesh, batch))
            yield probabilities(np.asarray(logits)[: len(rows)])
            single = False


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Logits (N, outputs) → float32 (N, classes); for one logit z, the columns are 1 - sigmoid(z) and sigmoid(z)."""
    return softmax(with_zero_logit(logits.astype(np.float64)), axis=1).astype(np.float32)


def with_zero_logit(logits: np.ndarray) -> np.ndarray:
    """One logit z → two, (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)); more logits come back as they are."""
    return np.pad(logits, ((0, 0), (1, 0))) if logits.shape[1] == 1 else logits
