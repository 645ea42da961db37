"""The bottlenecks of a split that earlier runs have left in the cache: looked up by content, and only read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console

from jaxcat.bottlenecks.parts import Parts, Reader
from jaxcat.data.digests import digests_of
from jaxcat.data.records import Split
from jaxcat.system.console import progress_of
from jaxcat.system.files import NoHomeError
from jaxcat.system.processes import values_of_processes

TRIED = 64  # images that are looked up first: they show whether the others are worth reading


class CachedSplit:
    """A split of which every bottleneck was found, unaugmented.

    Attributes:
        split: the records.
        digests: of each record, as `Split.digest` gives it.
        parts: the rows of all of them.
    """

    def __init__(self, split: Split, digests: Sequence[bytes], parts: Parts):
        """Takes `parts` that have the rows of all `digests`."""
        self.split, self.digests, self.parts = split, digests, parts

    def __len__(self) -> int:
        return len(self.split)

    def describe(self) -> str:
        """A few words: shape, dtype, size, and that all were found."""
        return f"{self.parts.describe(len(self))}, all {len(self)} found"

    def reader(self) -> Reader:
        """Reads the rows by the number of the record, from memory maps."""
        return self.parts.reader(self.digests, in_memory=False)


def find(split: Split, parts: Callable[[], Parts | None], *, console: Console) -> CachedSplit | None:
    """Looks in the cache for the bottlenecks of all records of a split, as a run would compute them.

    It decodes nothing: a row under an image's digest was computed from a readable image with the same bytes. It adds
    nothing to the cache; it removes damaged blocks that have wanted rows, as a run would.

    Args:
        split: N records.
        parts: gives the parts of the bottlenecks wanted, or None if there can be none.
        console: where progress is shown.

    Returns:
        The bottlenecks; None if there can be none, or any process of this command lacks a row or cannot read an image.
    """
    try:
        wanted = parts() if len(split) else None
        found = _look_up(wanted, split, console) if wanted else None
    except NoHomeError:  # there is no cache
        found = None
    everywhere = all(values_of_processes(found is not None))
    return found if everywhere else None


def _look_up(parts: Parts, split: Split, console: Console) -> CachedSplit | None:
    if not parts.exist() or not _all_there(parts, digests_of(split.take(np.arange(min(TRIED, len(split)))))):
        return None
    with progress_of("images read", total=len(split), console=console) as advance:
        digests = digests_of(split, progress=advance)
    return CachedSplit(split, [each for each in digests if each], parts) if _all_there(parts, digests) else None


def _all_there(parts: Parts, digests: Sequence[bytes | None]) -> bool:
    wanted = [digest for digest in digests if digest]
    if len(wanted) < len(digests):
        return False
    parts.refresh(wanted)
    return not parts.missing(wanted).any()
