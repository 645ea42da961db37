"""A trained classifier, restored from its workdir alone.

classifier = jaxcat.load("runs/mixed7")
probabilities = classifier.predict(["cat.jpg", pixels])       # (2, number of classes)
classifier.classes[probabilities[0].argmax()]
"""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcat.bottlenecks.engines.names import AUTO
from jaxcat.data.images.decoding import decode, decoding_of
from jaxcat.data.images.resizing import resize
from jaxcat.inference.averaged import AVERAGES, ORIGINAL, Average, average_of
from jaxcat.inference.calibrated import calibration_of
from jaxcat.inference.choice import EngineChoice
from jaxcat.inference.computation import EXPLAINED_TOGETHER
from jaxcat.inference.explanation import block_to_explain, labels_of, normalized, placed
from jaxcat.inference.given_images import is_single, readable
from jaxcat.models.backbone import pooled_blocks
from jaxcat.objectives.probabilities import probabilities
from jaxcat.runs.calibration import Calibration, divided
from jaxcat.runs.choice import choose, existing
from jaxcat.runs.head_file import Head, read_head
from jaxcat.runs.meta import Meta, pixel_changes, read_meta
from jaxcat.wording import counted, first_few, first_to_last, printable

if TYPE_CHECKING:
    from jaxcat.inference.xla import XLAComputation
    from jaxcat.models.network import Network, Tree
    from jaxcat.runs.restore import Restored

BATCH_SIZE = 32
NAMED = 10  # classes whose names the classifier shows
logger = logging.getLogger(__name__)


def load(
    workdir: str | os.PathLike,
    step: str | int = "best",
    *,
    engine: str = AUTO,
    keep_compiled: bool = False,
    calibrated: bool = False,
) -> Classifier:
    """Opens the classifier that a training run left in `workdir`.

    Args:
        step: "best" (highest validation accuracy, then lowest loss, then earliest; the latest if the run holds
            nothing out), "latest" or a step number.
        engine: what computes: "xla", "litert_float32", "litert_int8", or "auto"; see `EngineChoice.computation`.
        keep_compiled: whether the programs that JAX compiles are kept in jaxcat's cache, as those of commands are.
        calibrated: whether the temperature in the run's calibration.json divides its logits.

    Raises:
        CheckpointError: no run there, no such step, damaged files, or no calibration of this step. Files that only JAX
            needs are not read before it is needed.
        ConfigError: no such engine, or one that cannot compute this run; or its head is solved, so it has no
            temperature.
    """
    folder = existing(workdir)
    meta = read_meta(folder, choose(folder, step))
    if changes := pixel_changes(meta):
        logger.warning("%s: pixels may differ from those the run was trained on: %s", workdir, ", ".join(changes))
    calibration = calibration_of(folder, meta) if calibrated else None
    restore = functools.partial(_restored, folder, meta, keep_compiled=keep_compiled)
    classifier = Classifier(meta, restore=restore, workdir=folder, engine=engine, calibration=calibration)
    classifier.engine.prepare()
    return classifier


def _restored(folder: Path, meta: Meta, *, keep_compiled: bool) -> Restored:
    """The network of a run, restored by JAX."""
    from jaxcat.runs.restore import restore_step
    from jaxcat.system.compilation import enable_compilation_cache

    if keep_compiled:
        enable_compilation_cache()
    return restore_step(folder, meta)


class Classifier:
    """Class names and preprocessing of a run, and what computes its answers.

    JAX is imported when something needs it: the engine xla, a conversion, or the arrays.

    Attributes:
        classes: names, in the order of the probabilities.
        config: the configuration of the run.
        meta: the description of the checkpoint: step, provenance of the weights, versions, history.
        workdir: of the run; None for published weights.
        engine: which engine computes the answers.
        calibration: what its logits are divided by, and where that comes from; None: nothing.
    """

    def __init__(
        self,
        meta: Meta,
        *,
        restore: Callable[[], Restored],
        workdir: Path | None = None,
        engine: str = AUTO,
        calibration: Calibration | None = None,
    ):
        """Reads nothing.

        Args:
            meta: of the checkpoint.
            restore: gives the network with its arrays, which are then on the devices.
            workdir: where a file of the head may be.
            engine: see `load`.
            calibration: of this checkpoint.

        Raises:
            ConfigError: no such engine, or one that cannot compute this run.
        """
        self.meta, self.classes, self.config = meta, meta.classes, meta.config
        self._restore, self.workdir, self.calibration = restore, workdir, calibration
        self.engine = EngineChoice(meta, asked=engine, head=self._head_in_file, xla=lambda: self.xla)

    def __repr__(self) -> str:
        names = first_few([printable(name) for name in self.classes], NAMED)
        return (
            f"<jaxcat classifier: {counted(len(self.classes), 'class', 'classes')} ({names}), "
            f"{first_to_last(pooled_blocks(self.config.model))} of {self.config.model.backbone}, step {self.step}>"
        )

    @property
    def step(self) -> int:
        return self.meta.step

    # arrays -----------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def xla(self) -> XLAComputation:
        """The network with its arrays on the devices, and the programs that JAX compiles for it."""
        from jaxcat.inference.xla import XLAComputation

        restored = self._restore()
        trained = {**restored.trained, "params": self._divided(restored.trained["params"])}
        return XLAComputation(restored._replace(trained=trained))

    def _head_in_file(self) -> Head | None:
        """The arrays of the head, if the workdir has a file of them. Raises CheckpointError; see `read_head`."""
        found = read_head(self.workdir, self.meta) if self.workdir else None
        return self._divided(found) if found else None

    def _divided(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Parameters of the head as they came from disk → as all answers, exports and heat maps use them."""
        return divided(params, self.calibration.temperature) if self.calibration else params

    @property
    def network(self) -> Network:
        return self.xla.run.network

    @property
    def frozen(self) -> Tree:
        """`{"params", "stats"}` of the prefix, on the devices."""
        return self.xla.run.frozen

    @property
    def trained(self) -> Tree:
        """`{"params", "stats"}` of the suffix, on the devices."""
        return self.xla.run.trained

    @property
    def params(self) -> Tree:
        """Parameters of all stages, as nested dictionaries of arrays."""
        return {**self.frozen["params"], **self.trained["params"]}

    @property
    def stats(self) -> Tree:
        """BatchNorm statistics of all stages, as nested dictionaries of arrays."""
        return {**self.frozen["stats"], **self.trained["stats"]}

    # answers ----------------------------------------------------------------------------------------------------------

    def predict(
        self, images: Sequence[Any], *, batch_size: int = BATCH_SIZE, average_over: str = ORIGINAL
    ) -> np.ndarray:
        """Class probabilities, float32 (number of images, number of classes).

        Args:
            images: paths, encoded bytes, Pillow images, or arrays (H, W, 3) or (H, W) of uint8 or uint16, in any
                mixture.
            average_over: a name in `averaged.AVERAGES`: the views of each image whose probabilities are averaged.

        Raises:
            ConfigError: no such name.
            DataError: an image cannot be read; the message names it.
        """
        average = average_of(average_over)
        pixels = self._prepared(images, "predict", average)
        self.engine.computation(operator.length_hint(images) * average.passes)
        rows = self.predict_pixels(pixels, batch_size=batch_size, average=average)
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *rows])

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
        width = self.engine.computation(operator.length_hint(images)).features
        rows = [features for _, features in self.outputs_of_pixels(pixels, batch_size=batch_size)]
        return np.concatenate([np.zeros((0, width), np.float32), *rows])

    def explain(
        self,
        images: Sequence[Any],
        *,
        block: str = "",
        classes: Sequence[str] | None = None,
        batch_size: int = EXPLAINED_TOGETHER,
    ) -> np.ndarray:
        """Where the network looked: heat maps by Grad-CAM, float32 (number of images, image_size, image_size).

        Values are in [0, 1]: each map is divided by its maximum; one without any positive value is 0. Maps are on the
        square that the network sees; `inference.explanation.placed` places a map on the original image. JAX computes
        them in float32, whatever engine computes the answers.

        Args:
            images: as for `predict`.
            block: whose output is explained, such as "mixed7"; "" is the last one that the head reads.
            classes: the name of the class to explain for each image; None is the class that `predict` finds most
                probable.

        Raises:
            ConfigError: no such block or class, a block after those that the head reads, or another number of classes.
            DataError: an image cannot be read; the message names it.
        """
        pixels = self._prepared(images, "explain")
        block = block_to_explain(self.config.model, block)
        labels: Iterable[int]
        if classes is not None:
            labels = labels_of(classes, self.classes, images=len(images))
        else:
            self.engine.computation(operator.length_hint(images))
            pixels, again = itertools.tee(pixels)
            rows = self.predict_pixels(again, batch_size=batch_size)
            labels = (label for each in rows for label in each.argmax(axis=1).tolist())
        size = self.config.data.image_size
        raws = self.xla.raw_maps(pixels, labels, block=block, batch_size=batch_size)
        maps = [placed(normalized(raw), shape=(size, size), size=size, mode="squash") for raw in raws]
        return np.stack(maps) if maps else np.zeros((0, size, size), np.float32)

    def _prepared(
        self, images: Sequence[Any], method: str, average: Average = AVERAGES[ORIGINAL]
    ) -> Iterator[np.ndarray]:
        """The images, decoded and resized one by one."""
        if is_single(images):
            raise TypeError(f"{method} takes a list of images: {method}([image])")
        return (self.prepare(image, f"image {i}", average) for i, image in enumerate(images))

    def prepare(self, image: Any, name: str = "image", average: Average = AVERAGES[ORIGINAL]) -> np.ndarray:
        """Decodes and resizes an image as in training: uint8 (S, S, 3), S = `average.side(image_size)`."""
        data = self.config.data
        return resize(self.decode(image, name), average.side(data.image_size), mode=data.resize)

    def decode(self, image: Any, name: str = "image") -> np.ndarray:
        """Decodes an image as in training, upright and of any size: uint8 (H, W, 3).

        Raises:
            DataError: the image cannot be read; the message names it.
        """
        image, name = readable(image, name)
        return decode(image, name, decoding_of(self.config))

    def predict_pixels(
        self, pixels: Iterable[np.ndarray], *, batch_size: int = BATCH_SIZE, average: Average = AVERAGES[ORIGINAL]
    ) -> Iterator[np.ndarray]:
        """Images prepared for `average` → probabilities float32 (b, classes), an array for each `batch_size` images."""
        views = (view for image in pixels for view in average.of(image, self.config.data.image_size))
        outputs = self.engine.computation().outputs(views, batch_size=batch_size, features=False)
        yield from average.means((probabilities(logits) for logits, _ in outputs), batch_size)

    def outputs_of_pixels(
        self, pixels: Iterable[np.ndarray], *, batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Prepared images → (probabilities float32 (b, classes), features float32 (b, features)) of each batch."""
        for logits, features in self.engine.computation().outputs(pixels, batch_size=batch_size, features=True):
            assert features is not None
            yield probabilities(logits), features
