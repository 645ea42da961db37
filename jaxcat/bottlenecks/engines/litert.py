"""The LiteRT interpreter: finds it, and runs images through a converted prefix. Imports neither JAX nor TensorFlow."""

from __future__ import annotations

import collections
import functools
import importlib.metadata
import logging
import os
import queue
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcat.data.augmentation.host import tensorflow
from jaxcat.errors import EngineError, one_line
from jaxcat.system.console import without_lines

logger = logging.getLogger(__name__)

INSTALL = "pip install 'ai-edge-litert>=2.3,<3'"
DELEGATE = "xnnpack"  # what computes the layers in the interpreter; part of the keys of bottlenecks
IMAGE = "image"  # the name of the input in a converted file
# From this many pixels a side on, interpreters of one thread each are faster than half as many of two: 18.9 and 23.1 ms
# an image at 299 px on 2 cores, but 9.3 and 6.4 at 176 px.
ONE_THREAD_FROM = 224
MOST_INTERPRETERS = 16  # each has weights and maps of its own: 42 MB for Inception-v3 at 299 px in 8 bits
AHEAD = 2  # images that wait for each interpreter
# Interpreters that a forked process has from its parent. They are kept: to free one would wait for threads that the
# process does not have.
_OF_THE_PARENT: list[Any] = []


class Found(NamedTuple):
    """An interpreter that is installed.

    Attributes:
        package, version: of the distribution that it comes from.
        Interpreter: its class.
    """

    package: str
    version: str
    Interpreter: Any


@functools.cache
def interpreter() -> Found | None:
    """The interpreter of ai-edge-litert, else that of TensorFlow, else None."""
    for package, find in (("ai-edge-litert", _own_package), ("tensorflow", _of_tensorflow)):
        try:
            return Found(package, *find())
        except Exception as error:  # not there, or for another system, NumPy or protobuf: these raise any type
            logger.debug("%s has no usable interpreter: %s", package, error)
    return None


def _own_package() -> tuple[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    return importlib.metadata.version("ai-edge-litert"), Interpreter


def _of_tensorflow() -> tuple[str, Any]:
    tf = tensorflow()
    # TensorFlow says at every use that it will remove the interpreter; what to install instead is in the requirements
    warnings.filterwarnings("ignore", message=r"(?s).*tf\.lite\.Interpreter is deprecated")
    return tf.__version__, tf.lite.Interpreter


def required_interpreter() -> Found:
    """The same; raises EngineError with the command that installs one, if there is none."""
    if (found := interpreter()) is None:
        raise EngineError(f"no LiteRT interpreter is installed: {INSTALL}")
    return found


class Converted(NamedTuple):
    """A converted prefix, read and checked: what `converted.find` and `converted.make` give.

    Attributes:
        path: the file.
        content: its bytes.
        image_size: pixels a side.
        outputs: the name in the file of each part of the configuration that it was found for. The file may have more.
    """

    path: Path
    content: bytes
    image_size: int
    outputs: tuple[str, ...]


class LiteRTPrefix:
    """A converted prefix that computes bottlenecks, image by image.

    Each image goes alone through an interpreter, so that its row never depends on other images.
    """

    def __init__(self, converted: Converted, *, threads: int | None = None):
        """Takes what `converted.find` or `converted.make` gave.

        Args:
            threads: how many cores to use; by default all. Results do not depend on it.

        Raises:
            EngineError: no interpreter is installed, or it cannot open the file.
        """
        self._converted, self._found = converted, required_interpreter()
        self._count, self._threads = division(threads or cores(), image_size=converted.image_size)
        self._waiting = AHEAD * self._count
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="litert")
        self._free: queue.LifoQueue[Opened] = queue.LifoQueue()
        with without_lines("XNNPACK delegate for CPU"):  # said once in a process
            self._free.put(self._open())

    def rows(
        self, images: Iterable[np.ndarray], parts: Sequence[int] | None = None
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields for each image, in their order, the features float32 (width,) of each part.

        Side by side, those of all parts are the pooled features of the network.

        Args:
            images: uint8 (S, S, 3) each. It is read only a few images ahead of what is computed.
            parts: numbers of the wanted parts of the configuration that the file was found for; by default all.
        """
        if self._process != os.getpid():  # forked: it has none of the threads, and would wait for them for ever
            _OF_THE_PARENT.append((self._pool, self._free))
            self._start()
        outputs = self._converted.outputs
        wanted = outputs if parts is None else tuple(outputs[part] for part in parts)
        rows: collections.deque[Future[tuple[np.ndarray, ...]]] = collections.deque()
        try:
            for image in images:
                rows.append(self._pool.submit(self._row, image, wanted))
                if len(rows) >= self._waiting:
                    yield rows.popleft().result()
            while rows:
                yield rows.popleft().result()
        finally:
            for row in rows:
                row.cancel()

    def _row(self, image: np.ndarray, wanted: Sequence[str]) -> tuple[np.ndarray, ...]:
        try:
            opened = self._free.get_nowait()
        except queue.Empty:
            opened = self._open()
        try:
            return opened.row(image, wanted)
        finally:
            self._free.put(opened)

    def _open(self) -> Opened:
        try:
            return Opened(self._found.Interpreter(model_content=self._converted.content, num_threads=self._threads))
        except (ValueError, RuntimeError, KeyError) as error:
            raise EngineError(
                f"{self._converted.path}: {self._found.package} {self._found.version} cannot open it: "
                f"{one_line(error)}; remove the file to have it made again"
            ) from error


class Opened:
    """One interpreter of a file that takes an image, `IMAGE`; one thread at a time may use it."""

    def __init__(self, opened: Any):
        opened.allocate_tensors()
        self._interpreter = opened
        self._image = {each["name"]: each for each in opened.get_input_details()}[IMAGE]
        self._outputs = {each["name"]: each["index"] for each in opened.get_output_details()}

    def row(self, image: np.ndarray, wanted: Sequence[str]) -> tuple[np.ndarray, ...]:
        """The outputs with these names for one image, uint8 (S, S, 3)."""
        if image.dtype != np.uint8 or (1, *image.shape) != tuple(self._image["shape"]):
            raise ValueError(f"{image.dtype} {image.shape} does not fit the input {self._image['shape']}")
        self._interpreter.set_tensor(self._image["index"], image[None])
        self._interpreter.invoke()
        get: Callable[[int], np.ndarray] = self._interpreter.get_tensor  # a copy
        return tuple(get(self._outputs[name])[0] for name in wanted)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def division(threads: int, *, image_size: int) -> tuple[int, int]:
    """How many interpreters there are, and how many threads each of them has, so that all cores are busy."""
    each = 1 if image_size >= ONE_THREAD_FROM else min(2, threads)
    each = max(each, -(-threads // MOST_INTERPRETERS))
    return -(-threads // each), each
