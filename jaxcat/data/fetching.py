"""Calls a function for consecutive numbers in threads, some numbers ahead, and gives its results in their order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(function: Callable[[int], T], count: int, *, threads: int, ready: int) -> Iterator[T]:
    """Yields `function(0)` … `function(count - 1)` in order.

    Args:
        function: may be called from several threads at once. Its first error ends the iterator, as it is.
        count: how many numbers there are.
        threads: how many calls run at the same time.
        ready: results that wait for the consumer, besides those that are being computed.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
    waiting: collections.deque[Future[T]] = collections.deque()
    try:
        for number in range(count):
            waiting.append(pool.submit(function, number))
            if len(waiting) == threads + ready:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
