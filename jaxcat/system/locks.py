"""Locks between processes, also of several hosts: who holds one, and what replaces them if the system has none."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from jaxcat.system.files import never, write_text

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_TRIES = 0.5

# What systems answer if a file system, such as a network mount without a lock service, has no locks.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


class Lock:
    """The lock file `path`. The system releases the lock when its holder ends, however that ends.

    If the file system has no locks, the file `path`.mark is the lock: it exists while the lock is held. If the holder
    is killed, it may stay. A dead holder on this host is noticed; one on another host is not, so the message names the
    file to delete.
    """

    def __init__(self, path: Path):
        self.path, self.mark = path, path.with_name(f"{path.name}.mark")
        self._about = path.with_name(f"{path.name}.holder")
        self._lock: filelock.BaseFileLock | None = None
        self._marked = False

    def acquire(self) -> bool:
        """Whether the lock is now held by this process; False if another process holds it.

        Raises:
            OSError: the lock file cannot be made.
        """
        try:
            # filelock itself would take an old lock file for a mark if the file system has no locks.
            lock: filelock.BaseFileLock = filelock.FileLock(self.path, fallback_to_soft=False)
            taken = _taken(lock)
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            if not self._marked:
                logger.warning("%s: its file system has no locks, so the file %s marks it", self.path, self.mark.name)
            self._marked = True
            lock = filelock.SoftFileLock(self.mark)
            taken = _taken(lock) or _taken(lock)  # filelock up to 4.2.0 removes a dead one's mark and tries no more
        if not taken:
            return False
        self._lock = lock
        now = datetime.datetime.now().isoformat(" ", "seconds")
        with contextlib.suppress(OSError):  # it only serves messages
            write_text(self._about, json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}))
        return True

    def release(self) -> None:
        """Gives the lock back, if it is held."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._about.unlink()
            self._lock.release()
            self._lock = None

    def holder(self) -> str:
        """Who holds the lock, and what to do if that process is gone; for messages."""
        try:
            about = json.loads(self._about.read_text())
            who = f"process {about['process']} on host {about['host']}, since {about['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        if self._marked:
            return f"{who}; if that is gone, delete {self.mark}"
        return f"{who} (lock file {self.path})"


def _taken(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, *, waiting: Callable[[str], None], stop: Callable[[], int] = never) -> Iterator[int]:
    """Holds the lock file `path` while the block runs. If another process holds it, calls `waiting` once with who.

    Yields 0 if the lock is held. If `stop` answers other than 0 during the wait, yields its answer without the lock.

    Raises:
        OSError: the lock file cannot be made.
    """
    lock, asked = Lock(path), False
    try:
        while not lock.acquire():
            if not asked:
                waiting(lock.holder())
                asked = True
            if status := stop():
                yield status
                return
            time.sleep(SECONDS_BETWEEN_TRIES)
        yield 0
    finally:
        lock.release()
