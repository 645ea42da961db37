"""The records of a run, found again in data that were changed or moved: by content, then by name."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcat.bottlenecks.cached import CachedSplit
from jaxcat.data.archives import archives
from jaxcat.data.corrections import corrected_images
from jaxcat.data.records import Data, Split, fingerprint
from jaxcat.data.sources import open_data
from jaxcat.data.store import Store
from jaxcat.errors import CheckpointError, ConfigError, DataError
from jaxcat.inference.found_images import find, images_below, images_of
from jaxcat.runs.meta import Meta
from jaxcat.runs.records import FILE, Listed, changed_images, read_list, rules_of, some
from jaxcat.training.optim import is_exact
from jaxcat.wording import printable

logger = logging.getLogger(__name__)

IN_PACKAGES = ("digits", "glyphs")  # values of data.source whose images come with a package and cannot move


def listed_records(workdir: Path, meta: Meta) -> dict[str, Listed] | None:
    """The records that the run has listed, by split; None, with a warning, if its list is missing or damaged.

    None without a warning if the run is of a version that wrote no list.
    """
    if meta.records is None or meta.records.list_digest is None:
        return None
    try:
        return read_list(workdir, meta.records.list_digest, classes=meta.classes)
    except CheckpointError as error:
        logger.warning("%s; the images of the run are now known by their names only", error)
        return None


def own_split(meta: Meta, split: str, *, listed: Mapping[str, Listed] | None) -> Split:
    """A split of the run, from the data that its configuration names.

    Train and validation are those that the run was trained and validated on, even if other images have been added.

    Args:
        listed: the result of `listed_records`; without it, the split is what the run's indexing rules find in the data
            now.

    Raises:
        ConfigError: the data have other classes than the run, or no such split.
        DataError: the data cannot be opened, or have none of the images.
    """
    config, where = meta.config, f"--config.data.dir={meta.config.data.dir}"
    opened = _opened(meta, listed, split=split)
    if split == "test" or listed is None or split not in listed:
        if split not in opened.splits:
            there = f"put images into {config.data.dir}/{split}/CLASS, or " if _takes_folders(config) else ""
            raise ConfigError(
                f"--split {split}: the data have only {', '.join(opened.splits)}; {there}measure a folder of other "
                "images, which has a folder for each class, with --data DIR"
            )
        if not len(opened.splits[split]):
            raise ConfigError(
                f"--split {split}: this run holds nothing out (--config.data.validation_fraction=0); measure it on "
                f"other images with --data DIR, where DIR has a folder for each class, or with {_others(opened.splits)}"
            )
        if listed is None and not config.data.skip_bad:  # else the fingerprint leaves out unreadable images
            _check_fingerprint(meta, opened.splits)
        return opened.splits[split]
    now, own = opened.splits.get(split), listed[split]
    if now is not None and now.files == own.files and np.array_equal(now.labels, own.labels):
        return now
    apart = config.data.train_dir or config.data.validation_dir or config.data.test_dir  # may lie elsewhere
    here = config.data.source == "folder" and not apart
    root = Path(config.data.dir).expanduser()
    more = corrected_images(config)
    images = images_below(root, where, rules=rules_of(meta), more=more) if here else images_of(meta, config)
    found = find(split, listed, images, where=where, complete=False)
    if not config.data.skip_bad:  # else the list leaves out unreadable images
        logger.warning(
            "the images for training and validation have other names or labels than when the run began: the run's own "
            "%s of %s are measured",
            *(f"{len(found):,}", split),
        )
    return found


def _takes_folders(config: ConfigDict) -> bool:
    """Whether a folder of the name of a split would be one of the data: those of the other splits lie there so."""
    return config.data.source == "folder" and (Path(config.data.dir).expanduser() / "train").is_dir()


def _opened(meta: Meta, listed: Mapping[str, Listed] | None, *, split: str) -> Data:
    """The data that the configuration of a run names. Errors name --moved-data if that helps."""
    config = meta.config
    if split != "train" and listed is not None and config.data.corrections:
        # Corrections are in train only: what is measured does not depend on a table that may have changed since.
        config = config.copy_and_resolve_references()
        config.data.corrections = ""
    places = (meta.config.data.dir, meta.config.data.get("table"))
    way = ""
    if any(place and not Path(place).expanduser().exists() for place in places):
        way = "; if the data have moved, give their place with --moved-data DIR"
    elif listed is not None and meta.config.data.source not in IN_PACKAGES:
        way = "; --moved-data DIR finds the run's own images below DIR, whatever their folders are called now"
    try:
        opened = open_data(config, rules=rules_of(meta))
    except DataError as error:
        raise DataError(f"{error}{way}") from error
    if opened.classes != meta.classes:
        here = ", ".join(map(printable, opened.classes))
        raise ConfigError(f"the data now have classes {here}; the run has {names_of(meta)}{way}")
    return opened


def _others(splits: Mapping[str, Split]) -> str:
    """The flags for the splits that have images."""
    test = "--split test, or " if len(splits.get("test", ())) else ""
    return f"{test}--split train, the images it was trained on"


def moved_split(meta: Meta, split: str, *, moved: Path, listed: Mapping[str, Listed] | None) -> Split:
    """A split of the run, found in another place.

    Raises:
        ConfigError: the data of the run come with a package, or the run had no such split.
        DataError: an image of the split is not there; or, without a list, names or labels differ.
    """
    where = f"--moved-data {moved}"
    if meta.config.data.source in IN_PACKAGES:
        source = meta.config.data.source
        raise ConfigError(f"{where}: the data of this run ({source}) come with a package and cannot move; leave it out")
    archives.open_archive(moved)
    if not archives.isdir(moved):
        raise DataError(f"{where}: {archives.why_no_folder(moved)}")
    config = meta.config.copy_and_resolve_references()
    config.data.dir = str(moved)
    if listed is None:
        return _moved_by_names(meta, split, config=config, where=where)
    if split not in listed:
        there = ", ".join(listed)
        raise ConfigError(f"--split {split}: the run had only {there} when it began; measure a folder with --data DIR")
    if config.data.source == "tfds":
        images = images_of(meta, config)
    else:
        tables = listed.values() if config.data.source == "table" else ()  # a table may name any file
        names = itertools.chain.from_iterable(each.files for each in tables)
        more = corrected_images(config)
        images = images_below(moved, where, rules=rules_of(meta), names=names, more=more)
    return find(split, listed, images, where=where, complete=True)


def _moved_by_names(meta: Meta, split: str, *, config: Any, where: str) -> Split:
    """For a run without a list: the split that its rules find there, if names and labels are those of the run."""
    if config.data.table and not os.path.exists(table := Path(config.data.table)):
        if not (Path(config.data.dir) / table.name).is_file():
            raise DataError(
                f"{where}: the run has no usable {FILE}, and neither {table} nor {table.name} in there exists; measure "
                "images with --data DIR or --data TABLE"
            )
        config.data.table = str(Path(config.data.dir) / table.name)
    opened = open_data(config, rules=rules_of(meta))
    if opened.classes != meta.classes:
        raise ConfigError(f"{where}: has classes {', '.join(opened.classes)}; the run has {names_of(meta)}")
    if split not in opened.splits:
        raise ConfigError(f"--split {split}: {where} has only {', '.join(opened.splits)}")
    before = meta.records and meta.records.fingerprint
    if before not in (None, fingerprint(opened.splits)) and not config.data.skip_bad:
        raise DataError(
            f"{where}: the images for training and validation have other names or labels than those of the run, and "
            f"the run has no {FILE} that says which ones were its own; put the folder back as it was, or measure "
            "what is there with --data DIR"
        )
    checked = "names and labels agree with its fingerprint" if before and not config.data.skip_bad else "not checked"
    logger.warning("the run has no usable %s: its %s split was found by names only (%s)", FILE, split, checked)
    return opened.splits[split]


def _check_fingerprint(meta: Meta, splits: Mapping[str, Split]) -> None:
    """Says of a run without a list by which rules its data are indexed, and whether names and labels have changed."""
    before = meta.records and meta.records.fingerprint
    if before is None:
        return
    if before != fingerprint(splits):
        logger.warning(
            "the images for training and validation have other names or labels than when the run began: it may "
            "have been trained on some of the images that are measured now"
        )
        return
    logger.warning(
        "the run has no usable %s: its data are indexed by rules %d, as when it began; names and labels agree with "
        "its fingerprint",
        *(FILE, rules_of(meta)),
    )


def warn_of_changes(store: Store | CachedSplit, listed: Mapping[str, Listed]) -> None:
    """Warns of images of the run's own split whose content is not that of the list, or even that of other records."""
    name = store.split.name
    changed = changed_images(store.split, store.digests, listed.get(name))
    if not changed:
        return
    now = dict(zip(store.split.files, store.digests, strict=True))
    train = frozenset(listed["train"].digests)
    mixed = [file for file in changed if now[file] in train] if name != "train" else []
    logger.warning(
        "%s of %s images of %s have other content than when the run began, such as %s%s",
        *(f"{len(changed):,}", f"{len(store):,}", name, some(changed)),
        f"; {len(mixed):,} of them now have that of an image that the run was trained on: {some(mixed)}"
        if mixed
        else "",
    )


def part_of_validation(meta: Meta) -> str:
    """What the validation images did while the run was made, after "they are the run's validation images, "."""
    if is_exact(meta.asked):
        return "by which nothing was chosen: its head was solved on train alone"
    return "by which the best of its epochs was chosen"


def warn_of_known(store: Store | CachedSplit, listed: Mapping[str, Listed] | None, *, meta: Meta) -> None:
    """Warns of images that the run was trained or validated on; content identifies them."""
    if listed is None:
        logger.warning("the run has no usable %s: it may have been trained on some of these images", FILE)
        return
    train, validation = (
        frozenset(listed[name].digests) if name in listed else frozenset() for name in ("train", "validation")
    )
    for known, what in (
        (train, "the run was trained on them, so the figures look better than they are"),
        (validation - train, f"they are the run's validation images, {part_of_validation(meta)}"),
    ):
        names = [name for name, digest in zip(store.split.files, store.digests, strict=True) if digest in known]
        if names:
            number = f"{len(names):,} of {len(store):,} images"
            logger.warning("%s, such as %s: %s", number, some(names), what)


def names_of(meta: Meta) -> str:
    """The class names of a run, for a message."""
    return ", ".join(map(printable, meta.classes))
