"""Trees on disk that Orbax never merged, in the checkpoints of older versions under names with [, ], * or ?.

Orbax writes a tree in two steps: each process writes its arrays to `ocdbt.process_N/`, then a list of all of them,
`manifest.ocdbt`, is made beside these folders. The second step finds the folders with a glob. So in `run [1]` it found
none, and no tree could be restored although every array is there. `plain_link` prevents that now.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorstore

from jaxcat.system.paths import plain_link

LIST = "manifest.ocdbt"
PARTS = "ocdbt.process_"


@contextlib.contextmanager
def readable(tree: Path) -> Iterator[Path]:
    """Yields a folder to restore the tree from: `tree`, a link to it, or a merged copy if it lacks its list.

    Writes nothing to `tree`: a workdir may be read-only.
    """
    with plain_link(tree) as folder:
        parts = () if (folder / LIST).exists() else sorted(_named(folder, PARTS))
        if not parts:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="jaxcat-") as temporary:
            merged = Path(temporary)
            for entry in _named(folder, ""):
                os.symlink(folder / entry, merged / entry)
            _merge([folder / part for part in parts], merged)
            yield merged


def _named(folder: Path, beginning: str) -> list[str]:
    if not folder.is_dir():
        return []  # Orbax says that it is missing
    return [name for name in os.listdir(folder) if name.startswith(beginning)]


def _merge(parts: list[Path], target: Path) -> None:
    """Copies every value of the key-value stores in `parts` to one in `target`."""
    merged = _store(target)
    for part in parts:
        values = _store(part)
        for key in values.list().result():
            merged.write(key, values.read(key).result().value).result()


def _store(folder: Path) -> tensorstore.KvStore:
    base = {"driver": "file", "path": f"{folder}/"}
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
