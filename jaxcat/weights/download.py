"""The cache of published weights files: each is downloaded once, checked against its hash, and then given its name.

A download is written to `FILE.part` under a lock. So a half-written or wrong file never has the name that others read,
two processes that start together download once, and an interrupted download continues where it stopped.
"""

# pooch (1.9) does not fit: it deletes what arrived before a connection broke, compares whole hashes only (torchvision
# publishes the beginning of one), has no limit on the size and does not trust on first use files without a hash.

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from jaxcat.errors import WeightsError, one_line
from jaxcat.system.console import Console
from jaxcat.system.files import cache_dir, write_text
from jaxcat.system.locks import locked
from jaxcat.weights.formats.detection import OF_LAYOUT, looks_like
from jaxcat.weights.registry import WeightsSpec
from jaxcat.wording import counted

if TYPE_CHECKING:
    import requests  # imported where a download begins: no other run needs it

CHUNK = 64 * 1024  # bytes; at most so many are lost if a connection breaks


@dataclasses.dataclass(frozen=True)
class Patience:
    """Time limits of a download, in seconds, and the number of attempts.

    Attributes:
        connect: longest time until the server answers.
        read: longest time between two packets.
        attempts: number of connections in all.
        pause: time before the second attempt; it doubles before each further one.
    """

    connect: float = 10.0
    read: float = 30.0
    attempts: int = 4
    pause: float = 1.0


PATIENCE = Patience()


class _Interrupted(Exception):
    """One attempt has failed, and the next may succeed."""


def fetch(spec: WeightsSpec, *, limit: int, progress: bool = True, patience: Patience = PATIENCE) -> Path:
    """The path of the verified file in the cache, downloaded first if it is not there.

    Args:
        spec: what to fetch; size and hashes are checked on every call (0.2 s for 88 MB).
        limit: most bytes that a download may have, whatever the server says.
        progress: whether to draw a bar on standard error.
        patience: time limits of the download.

    Raises:
        WeightsError: the server cannot be reached, stalls or has no such file; what it sends, or the file in the cache,
            is not the published file; the disk is full or the cache cannot be written.
    """
    path = place_of(spec)
    console = Console(stderr=True, quiet=not progress)
    try:
        if path.exists():  # before the lock: a cache prepared by someone else may be read-only
            return _verified(path, spec)
        path.parent.mkdir(parents=True, exist_ok=True)

        def waiting(holder: str) -> None:
            console.print(f"waiting for another process that downloads {path.name}: {holder}")

        with locked(path.with_name(f"{path.name}.lock"), waiting=waiting):
            if path.exists():
                return _verified(path, spec)
            part = path.with_name(path.name + ".part")
            _download(spec, part, path=path, limit=limit, console=console, patience=patience)
            if difference := _difference(part, spec) or _foreign(part, spec):
                part.unlink()
                raise WeightsError(
                    f"{spec.url} sent a damaged or different file: {difference}. The download was deleted; run again. "
                    f"{_by_hand(path)}"
                )
            os.replace(part, path)
    except OSError as error:
        raise WeightsError(
            f"{spec.url} cannot be kept in the cache: {error}. Free space there or set JAXCAT_CACHE to another "
            f"directory. {_by_hand(path)}"
        ) from error
    return path


def place_of(spec: WeightsSpec) -> Path:
    """The path of the file in the cache, where it is or would be."""
    return cache_dir() / spec.file


def remember(spec: WeightsSpec, path: Path, sha256: str) -> None:
    """Trusts on first use: if no hash is published, notes the hash of the first file with the right structure.

    From then on `fetch` compares files with that hash. Does nothing if a hash is published or noted already. If it
    cannot be written, as in a read-only cache, it is still printed, so that the user can compare it.
    """
    noted = _noted(path)
    if spec.md5 or spec.sha256 or noted.exists():
        return
    try:
        write_text(noted, sha256 + "\n")
        where = f"is noted in {noted}"
    except OSError as error:  # a cache prepared by someone else may be read-only
        where = f"cannot be noted in {noted} ({one_line(error)}), so the next file is not compared with it"
    Console(stderr=True).print(f"no hash of {spec.name} is published: trusted on first use; sha256 {sha256} {where}")


def _noted(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".part") + ".sha256")


def _by_hand(path: Path) -> str:
    return (
        f"Without a network: get that file on another machine and put it at {path}, or put it anywhere and set "
        "--config.model.weights=PATH."
    )


def _verified(path: Path, spec: WeightsSpec) -> Path:
    if difference := _difference(path, spec):
        raise WeightsError(
            f"{path} is not the file that the name {spec.name!r} stands for: {difference}. Delete it and run again, or "
            "set --config.model.weights=PATH to use another file."
        )
    return path


def _difference(path: Path, spec: WeightsSpec) -> str | None:
    """How the file differs from the published one, or None."""
    size = path.stat().st_size
    if spec.size is not None and size != spec.size:
        return f"it has {counted(size, 'byte')}, the published file {spec.size:,}"
    sha256, origin = spec.sha256, "published"
    if not (spec.md5 or sha256) and _noted(path).exists():
        sha256, origin = _noted(path).read_text().strip(), "first"
    for name, known in (("md5", spec.md5), ("sha256", sha256)):
        if known is not None:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()
            if not found.startswith(known):
                return f"its {name} is {found}, the {origin} one {known}"
    return None


def _foreign(part: Path, spec: WeightsSpec) -> str | None:
    """If neither size nor hash is published: what the file is instead of weights, such as a login page, or None."""
    if spec.size is not None or spec.md5 or spec.sha256:
        return None
    kind, wanted = looks_like(part), OF_LAYOUT[spec.layout]
    return None if kind in wanted else f"it is {kind}, but the published file is {' or '.join(wanted)}"


def _download(spec: WeightsSpec, part: Path, *, path: Path, limit: int, console: Console, patience: Patience) -> None:
    """Fills `part`, and reconnects as often as `patience` allows."""
    import requests

    console.print(f"downloading {spec.url} to {path}")
    console.print(f"licence {spec.licence}: {spec.notice}")
    columns = (TextColumn(spec.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        bar.add_task(spec.name, total=spec.size)
        for attempt in range(patience.attempts):
            if attempt:
                time.sleep(patience.pause * 2 ** (attempt - 1))
            try:
                return _transfer(spec, part, path=path, limit=limit, bar=bar, patience=patience)
            except (_Interrupted, requests.RequestException) as error:
                reason = _reason(error)
    arrived = part.exists() and part.stat().st_size > 0
    kept = "What has arrived is kept, and the next run continues there. " if arrived else ""
    raise WeightsError(
        f"{spec.url} could not be downloaded in {counted(patience.attempts, 'attempt')}, the last of which ended with: "
        f"{reason}. "
        f"{kept}{_by_hand(path)}"
    )


def _reason(error: Exception) -> str:
    """What went wrong, without urllib3's wrapping: `Failed to resolve …` and not `Max retries exceeded with url …`."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", None) or inner)


def _transfer(spec: WeightsSpec, part: Path, *, path: Path, limit: int, bar: Progress, patience: Patience) -> None:
    """Makes one connection: appends to `part` what is missing, or starts it anew if the server cannot resume."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    if spec.size is not None and have == spec.size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    timeout = (patience.connect, patience.read)
    with requests.get(spec.url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{have}":
            return  # nothing is left to send
        if response.status_code in (206, 416) and not _resumes(response, have):
            part.unlink(missing_ok=True)
            raise _Interrupted(f"HTTP {response.status_code} does not continue at byte {have}")
        total = _total(response, spec, path=path, limit=limit)
        resume = response.status_code == 206
        written = have if resume else 0
        task = bar.task_ids[0]
        bar.update(task, completed=written, total=total)
        with open(part, "ab" if resume else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                written += len(chunk)
                if written > limit:  # possible if the server does not say how much it sends
                    raise WeightsError(f"{spec.url} sends more than {limit:,} bytes. {_by_hand(path)}")
                bar.update(task, completed=written)
    if total is not None and written < total:
        raise _Interrupted(f"the connection closed after {written:,} of {counted(total, 'byte')}")


def _resumes(response: requests.Response, have: int) -> bool:
    return re.match(rf"bytes {have}-\d+/", response.headers.get("Content-Range", "")) is not None


def _total(response: requests.Response, spec: WeightsSpec, *, path: Path, limit: int) -> int | None:
    """The size of the whole file, if known. Raises an error if the response cannot be the published file."""
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise _Interrupted(status)
    if response.status_code not in (200, 206):
        raise WeightsError(f"{spec.url} answered {status}. {_by_hand(path)}")
    if response.status_code == 206:
        length = response.headers["Content-Range"].rpartition("/")[2]
    else:
        length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else spec.size
    if spec.size is not None and total != spec.size:
        raise WeightsError(
            f"{spec.url} offers {counted(total or 0, 'byte')}, the published file has {spec.size:,}: something else "
            f"answers there, perhaps this network's login page. {_by_hand(path)}"
        )
    if total is not None and total > limit:
        raise WeightsError(
            f"{spec.url} offers {counted(total, 'byte')}, more than the {limit:,} allowed. {_by_hand(path)}"
        )
    return total
