"""Many decompositions at a time: one thread of linear algebra for each, as many threads as processors.

Two decompositions side by side take half the time of one after the other with two threads each, and much less if other
programs run, because threads of one decomposition wait for each other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from threadpoolctl import threadpool_limits

MOST = 8  # threads; each holds a few matrices
SECONDS = 0.5  # between two calls of `progress`

Chain = Callable[[], Iterator[Callable[[], None]]]


def in_parallel(chains: Sequence[Chain], *, total: int, progress: Callable[[str], None]) -> None:
    """Makes and calls the steps of all chains; those of one chain follow each other.

    Args:
        chains: each gives its steps.
        total: how many steps there are.
        progress: called now and then in this thread, with a few words. If it raises, no further step begins.
    """
    done, ended = [0], threading.Event()
    lock = threading.Lock()

    def work(chain: Chain) -> None:
        for step in chain():
            if ended.is_set():
                return
            step()
            with lock:
                done[0] += 1

    with threadpool_limits(1), ThreadPoolExecutor(min(MOST, os.cpu_count() or 1)) as threads:
        left = {threads.submit(work, chain) for chain in chains}
        try:
            while left:
                finished, left = wait(left, timeout=SECONDS)
                for each in finished:
                    each.result()
                progress(f"{done[0]} of {total} solved")
        except BaseException:
            ended.set()
            threads.shutdown(cancel_futures=True)
            raise
