"""A folder of images as data: `DIR/{train,validation,test}/CLASS/…`, or `DIR/CLASS/…` split by the seed."""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.archives import archives
from jaxcat.data.division import divide
from jaxcat.data.images import heif
from jaxcat.data.images.decoding import SUFFIXES
from jaxcat.data.indexing import rules_1
from jaxcat.data.indexing.class_folders import ClassFolders, class_folders, images_by_class, skip_outside
from jaxcat.data.indexing.file_names import advice, open_by_names
from jaxcat.data.indexing.group_folders import tell_of_nested
from jaxcat.data.indexing.layout import split_roots
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.indexing.skipped import Reason, Skipped
from jaxcat.data.indexing.split_folders import class_root, flag
from jaxcat.data.indexing.split_names import split_name
from jaxcat.data.indexing.walking import entries, folders, folders_left, holds_images
from jaxcat.data.records import Data, Split, choose_classes, composed, frequent_classes
from jaxcat.errors import ConfigError, DataError
from jaxcat.escaping import for_shell
from jaxcat.system.paths import expanded
from jaxcat.wording import as_it_looks, first_few, is_printable, printable

logger = logging.getLogger(__name__)

NAMED = 20  # classes that a message names

_TRAIN_DIR = "--config.data.train_dir=FOLDER"
_ARCHIVES = (".zip", ".tar")  # which are read in place
_COMPRESSED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_TABLES = (".csv", ".tsv", ".parquet")
_LOOKED_FOR = ", ".join(sorted(SUFFIXES))


def open_folder(config: Any, *, rules: int = INDEX_RULES) -> Data:
    """Indexes the images below `data.dir`.

    The class names are the names of train's folders, sorted. Without a validation folder, `data.validation_fraction` of
    train is held out, by a hash of (seed, path) within each class. A test folder may lack classes or have others, whose
    images are left out; if it has no labelled image at all, there is no test split.

    Args:
        rules: version of the indexing rules.

    Raises:
        DataError: the folder is missing or holds no image, a class is empty, it is not clear which folders are splits,
            or train and validation disagree on the classes.
        ConfigError: `data.classes` names a class that is not there, or a named split is missing.
    """
    if not config.data.dir:
        raise DataError("--config.data.source=folder needs --config.data.dir=DIR, with a folder of images per class")
    try:
        root = expanded(config.data.dir)
    except ConfigError as error:
        raise ConfigError(f"--config.data.dir: {error}") from error
    archives.open_archive(root)
    if not archives.isdir(root):
        reason = archives.why_no_folder(root)
        if root.suffix.lower() in _TABLES and archives.isfile(root):
            reason = f"a table, not a folder: --config.data.source=table --config.data.table={config.data.dir}"
        raise DataError(f"--config.data.dir={config.data.dir}: {reason}")
    if config.data.label_pattern:
        return open_by_names(config, root, rules=rules)
    if rules == 1:
        roots = rules_1.split_roots(root, functools.partial(folders, rules=1))
    else:
        roots = split_roots(root, config.data, rules=rules)
        _tell_of_roots(root, roots)
    there = {name: class_folders(path, rules=rules, apart=list(roots.values())) for name, path in roots.items()}
    available = _available(there["train"])
    advice = f"put the folder of each other class beside it, into {printable(str(there['train'].root))}"
    chosen = choose_classes(available, config.data.classes, advice=advice)
    skipped = Skipped()
    images = {name: images_by_class(each, chosen, skipped, rules=rules) for name, each in there.items()}
    classes = frequent_classes({name: len(images["train"][name]) for name in chosen}, config)
    splits = {}
    for name, each in there.items():
        if rules == 1 or name != "test":
            _check_classes(each, classes, available, without=_only(name, roots))
            _check_filled(name, each, images[name], classes, skipped)
        elif not _tell_of_test(each, images[name], classes, available):
            continue
        splits[name] = _split(name, images[name], classes, base=_base(name, root, each.root))
    _check_names(splits)
    if rules != 1:
        base, pattern = _base("train", root, there["train"].root)[0], config.data.group_pattern
        tell_of_nested(there["train"], classes, base=base, group_pattern=pattern, rules=rules)
    skip_outside(root, there, available, skipped, rules=rules)
    held_out = "validation" not in splits or bool(config.data.fold)
    return Data(classes, divide(splits, config, classes), skipped=skipped, held_out=held_out)


def open_labelled_folder(root: Path, classes: tuple[str, ...], *, rules: int = INDEX_RULES) -> Split:
    """Every image of `root/CLASS/…` as one split, for evaluation. A label is the place of CLASS in `classes`.

    A class may have no folder and so no image.

    Raises:
        DataError: the folder is missing, has a class that is not in `classes`, or has no image.
    """
    archives.open_archive(root)
    if not archives.isdir(root):
        raise DataError(f"--data {root}: {archives.why_no_folder(root)}")
    known = {name if rules == 1 else composed(name): name for name in classes}
    here = class_folders(root if rules == 1 else class_root(root, known, rules=rules), rules=rules)
    if unknown := [name for name in here.of_class if name not in known]:
        named = [] if rules == 1 else [path for path in folders(root) if _has_classes(path, known)]
        inner = min(named, key=lambda path: _is_train(path), default=None)  # rather another split than train
        better = f"; did you mean --data {printable(str(inner))}?" if inner else ""
        are = "is no class" if len(unknown) == 1 else "are no classes"
        raise DataError(
            f"--data {root}: {', '.join(map(repr, unknown))} {are} of this classifier, which knows"
            f" {first_few(classes, NAMED)}; set --data to the folder that holds the class folders{better}"
        )
    skipped = Skipped()
    here = ClassFolders(here.root, {known[name]: paths for name, paths in here.of_class.items()})
    images = images_by_class(here, list(here.of_class), skipped, rules=rules)
    skip_outside(root, {"test": here}, list(here.of_class), skipped, rules=rules)
    skipped.warn()
    if not any(images.values()):
        hint = f"; did you mean --data {printable(str(root.parent))}?" if composed(root.name) in known else ""
        raise DataError(f"--data {root}: no images in class folders ({_LOOKED_FOR}){hint}")
    return _split(printable(root.name), images, classes, base=(root, ""))


def _tell_of_roots(root: Path, roots: Mapping[str, Path]) -> None:
    """Says which folders are taken for splits, if they are not DIR itself or folders in it with the splits' names."""
    usual = {name: path for name, path in roots.items() if rules_1.SPLIT_OF.get(path.name.lower()) == name}
    if roots != {"train": root} and any(usual.get(name) != root / path.name for name, path in roots.items()):
        found = ", ".join(f"{name} is {printable(str(path))}" for name, path in roots.items())
        logger.warning("the splits are not where they usually are: %s", found)


def _available(train: ClassFolders) -> list[str]:
    """The names of train's classes, sorted. Raises DataError if there are none, or one cannot be shown."""
    if not train.of_class:
        raise DataError(
            f"{train.root}: no class folders; --config.data.dir needs DIR/train/CLASS/… or DIR/CLASS/…,"
            f" with images ({_LOOKED_FOR})"
            + (advice(train.root) or _of_parent(train.root) or _of_archives(train.root) or folders_left(train.root))
        )
    for name in train.of_class:
        if not is_printable(name):  # class names go into tables, JSON and CSV
            raise DataError(f"{train.root}: class {printable(name)!r} is not printable UTF-8; rename the folder")
    return sorted(train.of_class)


def _of_parent(root: Path) -> str:
    """The end of a message about a folder without class folders, which may be a class folder beside others."""
    try:
        beside = [path for path in folders(root.parent) if path != root and holds_images(path, below=False)]
        is_class = bool(beside) and holds_images(root, below=False)
    except DataError:
        return ""
    setting = "train_dir" if split_name(root.name) else "dir"  # such a name would be taken for a split
    parent = for_shell(printable(str(root.parent)))
    return f"; is {printable(root.name)} a class? Then set --config.data.{setting}={parent}" * is_class


def _of_archives(root: Path) -> str:
    """The end of a message about a folder without class folders, if archives lie in it."""
    packed = [printable(path.name) for path in entries(root)[0] if path.name.lower().endswith(_ARCHIVES + _COMPRESSED)]
    if not packed:
        return ""
    there = f"{'is' if len(packed) == 1 else 'are'} {first_few(packed)}"
    in_place = next((name for name in packed if name.lower().endswith(_ARCHIVES)), "")
    place = for_shell(printable(str(root / in_place)))
    read = f", or, if {in_place} holds the class folders, set --config.data.dir={place}" if in_place else ""
    return f"; there {there}: unpack each into a folder of its own{read}"


def _is_train(path: Path) -> bool:
    return (name := split_name(path.name)) is not None and name.split == "train"


def _has_classes(directory: Path, known: Mapping[str, str]) -> bool:
    return any(composed(path.name) in known for path in folders(directory))


def _split(name: str, images: Mapping[str, Sequence[Path]], classes: Sequence[str], *, base: tuple[Path, str]) -> Split:
    """The records of these classes, in the order of `images`; their names are `base[1]` and the path from `base[0]`."""
    label_of = {class_name: label for label, class_name in enumerate(classes)}
    found = [(path, label_of[each]) for each in images if each in label_of for path in images[each]]
    files = tuple(base[1] + path.relative_to(base[0]).as_posix() for path, _ in found)
    labels = np.array([label for _, label in found], np.int32)
    return Split(name, files, labels, lambda index: found[index][0])


def _base(name: str, root: Path, split_root: Path) -> tuple[Path, str]:
    """The folder to which names of records are relative: `root` or, for a split elsewhere, its own; and a prefix."""
    return (root, "") if split_root == root or root in split_root.parents else (split_root, f"{name}/")


def _only(without: str, roots: Mapping[str, Path]) -> str:
    """The settings that name all splits but one."""
    return " ".join(flag(name, path) for name, path in roots.items() if name != without)


def _check_classes(there: ClassFolders, classes: Sequence[str], available: Sequence[str], *, without: str) -> None:
    """Raises DataError unless every class has a folder in this split, and every folder is a class of train.

    `without` has the settings that leave this split out.
    """
    where = printable(str(there.root))
    extra = [name for name in there.of_class if name not in available]
    if missing := [name for name in classes if name not in there.of_class]:
        alike = {as_it_looks(name).casefold() for name in extra} & {as_it_looks(name).casefold() for name in missing}
        there_is = f", but for {_quoted(extra)}: rename what is the same class, or" if alike else ";"
        left = [name for name in classes if name not in missing]
        choose = f", or take only classes that both have: --config.data.classes={for_shell(','.join(left))}"
        raise DataError(
            f"{where} has no folder for class {_quoted(missing)}, which train has{there_is} leave this folder out: "
            f"{without}{choose * (1 < len(left) <= NAMED and not any(',' in name for name in left))}"
        )
    for name in extra:
        near = difflib.get_close_matches(name, available, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"{printable(str(there.root / name))}: class {name!r} is not in train{hint}; move it elsewhere, or leave "
            f"{where} out: {without}"
        )


def _check_names(splits: Mapping[str, Split]) -> None:
    """Raises DataError if two records have one name, which can happen if splits lie in several places."""
    seen: set[str] = set()
    for split in splits.values():
        for name in split.files:
            if name in seen:
                raise DataError(
                    f"{printable(name)}: two images in different places would have this name; put the splits into one "
                    "folder, and set --config.data.dir to it"
                )
            seen.add(name)


def _check_filled(
    split: str, there: ClassFolders, images: Mapping[str, Sequence[Path]], classes: Sequence[str], skipped: Skipped
) -> None:
    """Raises DataError if classes of a split have no image; it names all of them."""
    empty = [printable(str(there.of_class[name][0])) for name in classes if not images[name]]
    if empty:
        skipped.warn()
        folders_of = "this class folder" if len(empty) == 1 else "these class folders"
        raise DataError(
            f"{', '.join(empty)}: no image in {folders_of} ({_LOOKED_FOR}); "
            + (f"{heif.INSTALL} for HEIC" if skipped.count(Reason.HEIC) else _way_out(split, images, classes))
        )


def _way_out(split: str, images: Mapping[str, Sequence[Path]], classes: Sequence[str]) -> str:
    """What to do about classes without images."""
    filled = [name for name in classes if images[name]]
    if split != "train":
        return f"add images, choose other classes with --config.data.classes, or name only train: {_TRAIN_DIR}"
    if len(filled) >= 2 and not any(split_name(name) for name in filled):
        return "--config.data.min_per_class=1 leaves out classes that are empty in train"
    return f"if the class folders are elsewhere, name the folder that holds them: {_TRAIN_DIR}"


def _tell_of_test(
    there: ClassFolders, images: Mapping[str, Sequence[Path]], classes: Sequence[str], available: Sequence[str]
) -> bool:
    """Warns of classes that a test folder lacks or has in addition; returns whether it has any labelled image."""
    where = printable(str(there.root))
    if not any(images[name] for name in classes):
        logger.warning("%s: no image in folders of the classes of train, so there is no test split", where)
        return False
    if missing := [name for name in classes if not images[name]]:
        logger.warning("%s: no image of %s; test is measured on the other classes", where, _quoted(missing))
    if extra := [name for name in there.of_class if name not in available]:
        logger.warning("%s: train has no class %s; test is measured without it", where, _quoted(extra))
    return True


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(printable(name)) for name in names[:10]) + (" …" if len(names) > 10 else "")
