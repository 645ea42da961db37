"""The one thread that computes, and how many requests may wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jaxcat.serve.refused import Refused

Result = TypeVar("Result")
MOST_WAITING = 16  # requests that are read, wait or are computed at a time


class Worker:
    """Does one job at a time, in the order in which they come. All methods but the jobs run in one event loop."""

    def __init__(self, most: int = MOST_WAITING):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="serve")
        self._most, self._taken = most, 0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place for one request while the block runs. Take it before reading the body, which takes memory.

        Raises:
            Refused: all places are taken.
        """
        if self._taken >= self._most:
            raise Refused(503, f"{self._most} images are waiting; try again in a moment", retry_after=1)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def do(self, job: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """The result of a job, done when those before it are."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, functools.partial(job, *arguments, **options))

    def close(self) -> None:
        """Drops the jobs that have not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)
