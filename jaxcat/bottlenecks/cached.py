"""The bottlenecks of a split that earlier runs have left in the cache: looked up by content, and only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.bottlenecks.key import keys_of
from jaxcat.bottlenecks.parts import Parts, parts_of
from jaxcat.bottlenecks.reading import batches_of, evaluated_together
from jaxcat.data.batches import Batches
from jaxcat.data.digests import digests_of
from jaxcat.data.records import Split
from jaxcat.models.network import Network, Tree
from jaxcat.system.console import progress_of
from jaxcat.system.files import NoHomeError
from jaxcat.system.processes import values_of_processes

TRIED = 64  # images: whether the others are worth reading is seen in these


class CachedSplit:
    """A split of which every bottleneck was found, unaugmented.

    Attributes:
        split: the records.
        digests: of each record, as `Split.digest` gives it.
        batch_size: records in a batch of `batches`, over all processes.
    """

    def __init__(self, split: Split, digests: Sequence[bytes], parts: Parts):
        """Takes `parts` that have the rows of all `digests`."""
        self.split, self.digests, self._parts = split, digests, parts
        self.batch_size = evaluated_together(len(split), row_bytes=parts.row_bytes)

    def __len__(self) -> int:
        return len(self.split)

    def describe(self) -> str:
        """A few words: shape, dtype, size, and that all were found."""
        return f"{self._parts.describe(len(self))}, all {len(self)} found"

    def batches(self, mesh: Mesh) -> Batches:
        """The batches of one pass over all records in order, from memory maps."""
        return batches_of(
            self._parts.reader(self.digests, in_memory=False),
            self._parts,
            labels=self.split.labels,
            indices=np.arange(len(self)),
            batch_size=self.batch_size,
            mesh=mesh,
        )


def find(
    split: Split,
    config: ConfigDict,
    *,
    network: Network,
    frozen: Tree,
    frozen_digests: Mapping[str, str],
    console: Console,
) -> CachedSplit | None:
    """Looks in the cache for the float32 bottlenecks of all records of a split, as a run would compute them.

    It decodes nothing, for a row under the digest of an image was computed from a good image of these bytes. It makes
    nothing in the cache; of the blocks with wanted rows, it removes those that are damaged, as a run would.

    Args:
        split: N records.
        config: the complete config of the run.
        network: the network of the run.
        frozen: `{"params", "stats"}` of its prefix.
        frozen_digests: of these arrays, from the meta of the run.
        console: where progress is shown.

    Returns:
        The bottlenecks; None if nothing of the network is frozen, the run keeps float16 rows, or any process of this
        command lacks a row or cannot read an image.
    """
    if not network.prefix_stages or config.bottleneck.dtype != "float32" or not len(split):
        return None
    try:
        keys = keys_of(config, network, frozen_digests=frozen_digests)
        parts = parts_of(keys, network=network, frozen=frozen, image_size=config.data.image_size)
        found = _look_up(parts, split, console)
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
