"""Other images to evaluate a run on: a folder or archive with class folders, names with classes in them, or a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxcat.data.archives import archives
from jaxcat.data.indexing.file_names import open_labelled_names
from jaxcat.data.indexing.folder import open_labelled_folder
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.indexing.table_source import open_labelled_table
from jaxcat.data.indexing.walking import folders
from jaxcat.data.records import Split, composed


def open_labelled(place: Path, classes: tuple[str, ...], config: Any, *, rules: int = INDEX_RULES) -> Split:
    """All images of `place` as one split; a label is the place of its class in `classes`.

    A file that is no archive is a table, with columns as the run's settings say. If the run found its classes by
    `data.label_pattern` and `place` has no class folder, so are those of `place`. `rules` are the run's indexing rules.

    Raises:
        ConfigError, DataError: `place` is missing, has no image, or an image has no class that is in `classes`.
    """
    archive = archives.open_archive(place)
    if archives.isfile(place) and archive is None:
        return open_labelled_table(place, classes, config)
    if config.data.label_pattern and archives.isdir(place):
        known = {composed(name) for name in classes}
        if not any(composed(path.name) in known for path in folders(place)):
            return open_labelled_names(place, classes, config.data.label_pattern, rules=rules)
    return open_labelled_folder(place, classes, rules=rules)
