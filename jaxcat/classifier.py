"""A trained classifier, restored from a workdir and nothing else.

classifier = jaxcat.load("runs/mixed7")
probabilities = classifier.predict(["cat.jpg", pixels])       # (2, number of classes)
classifier.classes[probabilities[0].argmax()]
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from scipy.special import softmax

from jaxcat import checkpoint_meta, checkpoints, images
from jaxcat.compilation import installed_versions, jit
from jaxcat.config import completed, validate
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.network import Network, Tree
from jaxcat.sharding import make_mesh, padded_batch_size, replicated, to_global
from jaxcat.steps import make_eval_step
from jaxcat.weights.registry import Preprocessing

BATCH_SIZE = 32


class Classifier:
    """A network with its numbers, class names and preprocessing.

    Attributes:
        classes: names, in the order of the probabilities.
        config: the configuration of the run.
        meta: everything the checkpoint says of itself: step, provenance of the weights, versions, history.
        params, stats: parameters and BatchNorm statistics of all stages, as nested dictionaries of arrays.
    """

    def __init__(self, network: Network, meta: dict, *, frozen: Tree, model: Tree):
        self.network, self.meta = network, meta
        self.classes = tuple(meta["classes"])
        self.config = completed(meta["config"])
        self.frozen, self.trained, self.trained_stats = frozen, model["params"], model["stats"]
        self.mesh = make_mesh()
        self._step = jit(make_eval_step(network), out_shardings=replicated(self.mesh))

    @property
    def params(self) -> Tree:
        return {**self.frozen["params"], **self.trained}

    @property
    def stats(self) -> Tree:
        return {**self.frozen["stats"], **self.trained_stats}

    @property
    def step(self) -> int:
        return self.meta["step"]

    def evaluate_batch(self, batch: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """A global batch as pipeline.batches gives it → (logits (B, outputs), masked sums)."""
        return self._step(self.trained, self.trained_stats, self.frozen, batch)

    def predict(self, pictures: Sequence[Any], *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Class probabilities, float32 (number of pictures, number of classes).

        Args:
            pictures: paths, encoded bytes, Pillow images or uint8 arrays (H, W, 3), mixed as you like.

        Raises:
            DataError: a picture cannot be read; the message names it.
        """
        if isinstance(pictures, (str, bytes, os.PathLike)):
            raise TypeError("predict takes a list of pictures: predict([picture])")
        pixels = (self.prepare(picture, f"picture {i}") for i, picture in enumerate(pictures))
        return np.concatenate(
            [np.zeros((0, len(self.classes)), np.float32), *self.predict_pixels(pixels, batch_size=batch_size)]
        )

    def prepare(self, picture: Any, name: str = "picture") -> np.ndarray:
        """Decode and resize as in training: uint8 (image_size, image_size, 3)."""
        if isinstance(picture, (str, os.PathLike)):
            picture, name = Path(picture), os.fspath(picture)
        data = self.config.data
        return images.resize(images.decode(picture, name), data.image_size, mode=data.resize)

    def predict_pixels(self, pixels: Iterator[np.ndarray], *, batch_size: int = BATCH_SIZE) -> Iterator[np.ndarray]:
        """Prepared pictures → probabilities float32 (b, classes) for every `batch_size` of them.

        All batches have one compiled shape. Where there is one only, it is as small as a power of two allows.
        """
        whole, batches_before = padded_batch_size(batch_size, self.mesh), 0
        rows: list[np.ndarray] = []

        def flush() -> np.ndarray:
            enough = padded_batch_size(1 << (len(rows) - 1).bit_length(), self.mesh)
            padded = whole if batches_before else min(whole, enough)
            image = np.zeros((padded, *rows[0].shape), np.uint8)
            image[: len(rows)] = rows
            batch = {"image": image, "label": np.zeros(padded, np.int32), "mask": np.arange(padded) < len(rows)}
            logits, _ = self.evaluate_batch(to_global(self.mesh, batch))
            return probabilities(np.asarray(logits)[: len(rows)])

        for picture in pixels:
            rows.append(picture)
            if len(rows) == batch_size:
                yield flush()
                rows, batches_before = [], batches_before + 1
        if rows:
            yield flush()


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Logits (N, outputs) → float32 (N, classes); one logit gives two columns, its sigmoid second."""
    return softmax(with_zero_logit(logits.astype(np.float64)), axis=1).astype(np.float32)


def with_zero_logit(logits: np.ndarray) -> np.ndarray:
    """One logit z → two, (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)); more logits come back as they are."""
    return np.pad(logits, ((0, 0), (1, 0))) if logits.shape[1] == 1 else logits


def load(workdir: str | os.PathLike, step: str | int = "best") -> Classifier:
    """Restore the classifier that a training run left in `workdir`.

    Args:
        step: "best" (highest validation accuracy, then lowest loss, then earliest), "latest" or a step number.

    Raises:
        CheckpointError: no run there, no such step, or damaged files.
    """
    folder = Path(workdir).absolute()
    if not os.path.isdir(folder):
        raise CheckpointError(f"--workdir {workdir}: no such directory")
    number = checkpoint_meta.choose(folder, step)
    meta = checkpoint_meta.read_meta(folder, number)
    try:
        config = completed(meta["config"])
        validate(config)
        network = Network(
            config.model,
            classes=len(meta["classes"]),
            image_size=config.data.image_size,
            preprocessing=Preprocessing.from_dict(meta["preprocessing"]),
            pool_counts_padding=meta["pool_counts_padding"],
        )
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = checkpoint_meta.first_line(error)
        raise CheckpointError(f"{folder}: step {number} describes a network that cannot be: {reason}") from error
    params, stats = network.shapes()
    (frozen_params, trained), (frozen_stats, trained_stats) = network.divide(params), network.divide(stats)
    sharding = replicated(make_mesh())
    frozen = checkpoints.restore_frozen(
        folder,
        shapes={"params": frozen_params, "stats": frozen_stats},
        wanted=meta["frozen_digests"],
        sharding=sharding,
    )
    model = checkpoints.restore_model(
        folder, number, shapes={"params": trained, "stats": trained_stats}, sharding=sharding
    )
    return Classifier(network, meta, frozen=frozen, model=model)


def versions() -> dict[str, str]:
    """Of the packages that shape results, for the checkpoint."""
    names = ("jaxcat", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
    return dict.fromkeys(names, "not installed") | installed_versions(*names) | {"backend": jax.default_backend()}
