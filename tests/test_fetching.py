"""Results come in order, computed some numbers ahead and no further; an error ends them as it is."""

from __future__ import annotations

import threading
import time

import pytest

from jaxcat.data.fetching import ahead


@pytest.mark.parametrize(("threads", "ready"), [(1, 0), (1, 2), (4, 0), (4, 3)])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_in_order_whatever_the_threads(threads, ready, count):
    def late(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    assert list(ahead(late, count, threads=threads, ready=ready)) == list(range(count))


def test_no_more_than_asked_for_is_begun():
    begun, lock = [], threading.Lock()

    def noted(number: int) -> int:
        with lock:
            begun.append(number)
        return number

    results = ahead(noted, 100, threads=2, ready=3)
    assert next(results) == 0
    time.sleep(0.1)
    assert sorted(begun) == list(range(5))
    results.close()
    time.sleep(0.1)
    assert len(begun) == 5


def test_the_first_error_ends_it():
    def failing(number: int) -> int:
        if number == 3:
            raise KeyError(number)
        return number

    results = ahead(failing, 10, threads=2, ready=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == []
