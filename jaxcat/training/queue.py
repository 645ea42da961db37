"""A limit on the steps that are queued on the device."""

from __future__ import annotations

import collections

from jax import Array

# Steps that may be queued on the device; JAX alone allows 32. With two, the device never waits for Python. With more,
# signals are answered late, batches fill the device's memory, and a measured wait for images is not the device's.
STEPS_AHEAD = 2


class InLine:
    """The queue of steps on the device, limited to `STEPS_AHEAD` that have not ended."""

    def __init__(self) -> None:
        self._results: collections.deque[Array] = collections.deque()

    def add(self, result: Array) -> None:
        """Notes a result of the newest step, and waits for the oldest if there are more than `STEPS_AHEAD`.

        Args:
            result: an array that no later step takes over (donates).
        """
        self._results.append(result)
        if len(self._results) > STEPS_AHEAD:
            self._results.popleft().block_until_ready()
