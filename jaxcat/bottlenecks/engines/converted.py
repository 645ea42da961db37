"""Prefixes converted for LiteRT, in the cache: found by a key, made if missing, and checked before use.

    CACHE/converted/KEY/key.json         everything that shapes the file, what it gives, and its SHA-256; written last
    CACHE/converted/KEY/prefix.tflite    the file

Nothing is ever read from a workdir: the interpreter is not safe against files made to harm it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.bottlenecks.engines.conversion import packed, plan_of_run, request_of
from jaxcat.bottlenecks.engines.litert import Converted
from jaxcat.bottlenecks.key import computations
from jaxcat.errors import CacheError, EngineError, JaxcatError, one_line
from jaxcat.models.plan import folded
from jaxcat.models.preprocessing import Conventions
from jaxcat.system.console import said_if_long
from jaxcat.system.files import ASIDE, NoHomeError, cache_dir, json_digest, never, write_bytes, write_errors_as
from jaxcat.system.locks import locked

logger = logging.getLogger(__name__)

FORMAT = 1  # of these files: raise it if key.json changes
FOLDER = "converted"  # in the cache
FILE = "prefix.tflite"
PROGRAM = "jaxcat.bottlenecks.engines.conversion"
SECONDS_BETWEEN_LOOKS = 0.1  # at a conversion that is awaited


def find(config: ConfigDict, conventions: Conventions, frozen_digests: Mapping[str, str]) -> Converted | None:
    """Looks in the cache for a converted prefix that gives all parts of a run; it may be one of a run with more blocks.

    Args:
        config: the complete config of the run; `bottleneck.engine` says how it is converted.
        conventions: those of the run's weights.
        frozen_digests: of its frozen arrays, from its meta.

    Returns:
        The file, read and checked; None if there is none, or no cache.
    """
    try:
        return _find(_wanted(config, conventions, frozen_digests))
    except NoHomeError:
        return None


def make(
    config: ConfigDict,
    conventions: Conventions,
    frozen_digests: Mapping[str, str],
    *,
    arrays: Callable[[], Mapping[str, Any]],
    console: Console,
) -> Converted:
    """What `find` gives or, if that is None, converts the prefix in another process and keeps it in the cache.

    Args:
        config, conventions, frozen_digests: see `find`.
        arrays: called only to convert; gives `{"params", "stats"}` of the prefix as NumPy arrays.
        console: where a line says that the prefix is being converted.

    Raises:
        EngineError: the conversion fails.
        CacheError: the cache cannot be written.
        Neither names a flag: that of training is none of evaluate's.
    """
    with contextlib.closing(Making(config, conventions, frozen_digests, arrays=arrays)) as making:
        making.wait(console)
        return making.result()


class Making:
    """What `make` does, begun at construction and going on beside other work."""

    def __init__(
        self,
        config: ConfigDict,
        conventions: Conventions,
        frozen_digests: Mapping[str, str],
        *,
        arrays: Callable[[], Mapping[str, Any]],
    ):
        """The arguments are those of `make`."""
        self._engine = config.bottleneck.engine
        self._wanted = _wanted(config, conventions, frozen_digests)
        self._request, self._arrays = request_of(config, conventions), arrays
        self._plan = plan_of_run(config, conventions)
        self._found: Converted | None = None
        self._error: BaseException | None = None
        self._process: subprocess.Popen | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conversion", daemon=True)
        self._thread.start()

    def wait(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        """Waits for the end, and says so if it takes long. Gives 0, or what `stop` returned if that is not 0."""
        with said_if_long(f"converting the network for {self._engine}", console=console):
            while self._thread.is_alive():
                self._thread.join(SECONDS_BETWEEN_LOOKS)
                if status := stop():
                    return status
        return stop()

    def result(self) -> Converted:
        """The converted prefix, after `wait` has given 0. Raises the errors of `make`."""
        if isinstance(self._error, JaxcatError):
            raise self._error
        if self._error is not None or self._found is None:
            raise RuntimeError("the conversion ended without a result") from self._error
        return self._found

    def close(self) -> None:
        """Ends the other process, if it still runs."""
        self._closed.set()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._found = _find(self._wanted) or self._under_lock()
        except BaseException as error:  # raised again in `result`
            self._error = error

    def _under_lock(self) -> Converted:
        """What another run has made meanwhile, else a new file."""
        folder = self._wanted.folder
        advice = "; free space (python -m jaxcat.cache list), or set JAXCAT_CACHE to another directory"
        with write_errors_as(CacheError, folder, advice):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / ".lock", waiting=lambda _: None, stop=lambda: int(self._closed.is_set())) as ended:
                if ended:
                    raise EngineError("the conversion was given up")
                return _find(self._wanted) or self._convert()

    def _convert(self) -> Converted:
        folder, arrays = self._wanted.folder, self._arrays()
        content = packed(folded(self._plan, arrays["params"], arrays["stats"]))
        for left in folder.glob(f"*{ASIDE}"):  # of killed runs; the lock is held
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, suffix=ASIDE) as aside:
            self._converse(content, Path(aside))
            made = (Path(aside) / FILE).read_bytes()
            os.replace(Path(aside) / FILE, folder / FILE)
        about = self._wanted.about | {"sha256": hashlib.sha256(made).hexdigest()}
        write_bytes(folder / "key.json", json.dumps(about, indent=1, sort_keys=True).encode())
        return Converted(folder / FILE, made, self._wanted.about["image_size"], self._wanted.outputs)

    def _converse(self, arrays: bytes, aside: Path) -> None:
        """Runs the program that converts; it writes FILE into the folder `aside`. Raises EngineError if it fails."""
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", PROGRAM, self._request, str(aside / FILE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(aside),
        )
        if self._closed.is_set():
            process.kill()
        said, noted = process.communicate(arrays)
        if process.returncode == 0 and (aside / FILE).is_file():
            return
        reason = _reason(process.returncode, said, noted)
        raise EngineError(f"the network could not be converted for {self._engine}: {reason}")


class _Wanted(NamedTuple):
    """A converted prefix that is looked for.

    Attributes:
        outputs: names of its outputs, in the order of the parts.
        folder: where it is made.
        about: what key.json will say, but for the SHA-256.
    """

    outputs: tuple[str, ...]
    folder: Path
    about: dict[str, Any]


def _wanted(config: ConfigDict, conventions: Conventions, frozen_digests: Mapping[str, str]) -> _Wanted:
    found = computations(config, conventions, frozen_digests)
    outputs = tuple(f"{each['stages'][-1]}/{each['pool'][0]}" for each in found)
    model, size, engine = config.model, config.data.image_size, config.bottleneck.engine
    about = {
        "format": FORMAT,
        "engine": engine,
        "backbone": model.backbone,
        "last": found[-1]["stages"][-1],
        "image_size": size,
        "parts": {output: json_digest(each) for output, each in zip(outputs, found, strict=True)},
    }
    names = [about["last"], f"{size}px", engine.removeprefix("litert_"), json_digest(about)[:8]]
    return _Wanted(outputs, cache_dir() / FOLDER / "-".join(names), about)


def _find(wanted: _Wanted) -> Converted | None:
    """The converted prefix with the fewest outputs among those that give all that is wanted."""
    able = []
    for folder in wanted.folder.parent.glob("*"):
        about = about_of(folder)
        if about.get("format") == FORMAT and wanted.about["parts"].items() <= about["parts"].items():
            able.append((len(about["parts"]), folder, about["sha256"]))
    for _, folder, digest in sorted(able):
        try:
            content = (folder / FILE).read_bytes()
        except FileNotFoundError:  # someone cleared the cache
            continue
        except OSError as error:  # for example another user's, who lets nobody read it
            logger.warning("%s is not used: %s", folder / FILE, one_line(error))
            continue
        if hashlib.sha256(content).hexdigest() == digest:
            return Converted(folder / FILE, content, wanted.about["image_size"], wanted.outputs)
        logger.warning("%s is damaged: it is not used, and made again if it is needed", folder / FILE)
        with contextlib.suppress(OSError):  # another user's
            (folder / "key.json").unlink()
    return None


def about_of(folder: Path) -> dict[str, Any]:
    """What key.json says in a folder of the cache; empty if it cannot be read."""
    try:
        about = json.loads((folder / "key.json").read_text())
        return about if isinstance(about, dict) and isinstance(about["parts"], dict) and about["sha256"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _environment(aside: Path) -> dict[str, str]:
    """The variables of the other process: it finds this jaxcat, and puts temporary files where there is space."""
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(aside)}


def _reason(status: int, said: bytes, noted: bytes) -> str:
    """Why the other process failed, in one line: the last that it said, else the last that it noted."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"the process was ended by {signal.Signals(-status).name}, perhaps for lack of memory"
    for text in (said, noted):
        if lines := [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]:
            return lines[-1].rstrip(".")
    return f"the process ended with status {status}"


def folders(root: Path) -> Iterator[tuple[Path, str]]:
    """Every folder of a converted prefix in the cache `root`, sorted, and what it holds, in a few words."""
    for folder in sorted((root / FOLDER).glob("*")):
        if folder.is_dir():
            about = about_of(folder)
            try:
                what = f"{about['backbone']} up to {about['last']}, {about['image_size']} px, for {about['engine']}"
            except KeyError:
                what = "a network without a readable key"
            yield folder, f"converted: {what}"
