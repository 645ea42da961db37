"""Bands of rows: large images are copied and resized band by band.

A band fits in a core's cache, and its memory is used again. A copy of a whole photograph of 12 megapixels needs 36 to
48 MB of new memory, whose first use takes longer than decoding.
"""

from __future__ import annotations

from collections.abc import Iterator

BAND = 2**18  # pixels of a band: 1 MB, as Pillow stores 4 bytes a pixel


def bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """The first row of each band, and the row after its last one; at least one row each."""
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
