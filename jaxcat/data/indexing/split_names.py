"""Names of folders that are splits ("Training", "seg_test", "Val_Data", "trainset" …), or parts of a data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

UNLABELLED = "unlabelled"  # images to predict, which some archives have beside their splits

_WORDS = {
    "train": "train|training|trn|trainval",
    "validation": "validation|val|valid|validate|validating|dev|devel|eval|evaluation",
    "test": "test|testing|tests|tst|holdout",
    UNLABELLED: "pred|predict|prediction|predictions|unlabeled|unlabelled|unsup|inference|submission",
}
# Words that say nothing of what is in the images; also written in one word with the split, as in "trainset".
_FILLER = (
    "set|sets|data|dataset|datasets|image|images|img|imgs|picture|pictures|photo|photos|pic|pics|folder|dir|split"
    "|sample|samples|file|files|jpg|jpeg|png|directory"
)
# Folders of a data set for another task, and folders into which images were divided because they are many.
_KINDS = (
    "annotation|annotations|label|labels|mask|masks|xml|xmls|bbox|bboxes|box|boxes|trimap|trimaps|segmentation"
    "|segmentations|jpegimages|imagesets|segmentationclass|segmentationobject|gt|metadata|meta|doc|docs"
    "|attribute|attributes|parts|imdb|list|lists|splits|info"
)
_PIECE = "part|parts|batch|batches|shard|chunk|fold|folds|vol|volume|archive|zip"
_ALSO_NOTHING = re.compile("my|the|all|raw|originals?|label+ed|sorted|master|examples?|figures?|results?")
_OF_SPLIT = {split: re.compile(rf"({words})({_FILLER})?\d*") for split, words in _WORDS.items()}
_NOTHING = re.compile(rf"({_FILLER})\d*|\d+")


class SplitName(NamedTuple):
    """What the name of a folder says.

    Attributes:
        split: "train", "validation", "test" or `UNLABELLED`.
        rest: the other words, such as ("seg",) of "seg_train"; the splits of one data set have the same.
    """

    split: str
    rest: tuple[str, ...]


def are_parts(names: Sequence[str]) -> bool:
    """Whether folders are parts of a data set by their names, and so no classes: images, labels; part_1, part_2."""
    words = [_words(name) for name in names]
    part = re.compile(rf"({_FILLER}|{_KINDS})\d*")
    if all(each and (part.fullmatch("".join(each)) or all(map(part.fullmatch, each))) for each in words):
        return True
    without_numbers = {tuple(word.rstrip("0123456789") for word in each if not word.isdigit()) for each in words}
    if len(names) < 2 or len(without_numbers) > 1 or not (left := without_numbers.pop()):
        return False
    return re.fullmatch(f"{_PIECE}|{_FILLER}", left[-1]) is not None


def are_numbered(names: Sequence[str]) -> bool:
    """Whether folders are called alike but for a number that counts them from 0 or 1: train_part1, train_part2."""
    parts = [re.fullmatch(r"(.*?)(\d+)\W*", name.lower()) for name in names]
    if not all(parts) or len({part[1] for part in parts if part}) > 1:
        return False
    numbers = sorted(int(part[2]) for part in parts if part)
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(names)))


def is_part(name: str) -> bool:
    """Whether a folder is a part of a data set beside its images by its name, such as "annotations" or "meta"."""
    words = _words(name)
    return bool(words) and all(re.fullmatch(rf"({_KINDS})\d*", word) for word in words)


def says_nothing(name: str) -> bool:
    """Whether a folder's name says only that there are data or images in it, such as "dataset" or "my_images".

    A number alone is not such a name: classes may be called 0 to 9.
    """
    if name.isdigit():
        return False
    return all(_ALSO_NOTHING.fullmatch(word) or _NOTHING.fullmatch(word) for word in _words(name))


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def split_name(name: str) -> SplitName | None:
    """The split that a folder's name may stand for; None if it names none, or several."""
    found, rest = set(), []
    for word in _words(name):
        splits = [split for split, pattern in _OF_SPLIT.items() if pattern.fullmatch(word)]
        found.update(splits)
        if not splits and not _NOTHING.fullmatch(word):
            rest.append(word)
    if found == {"train", "validation"}:  # "train_val": all that may be trained on
        found = {"train"}
    return SplitName(found.pop(), tuple(rest)) if len(found) == 1 else None
