"""Names of folders that are splits: "Training", "seg_test", "Val_Data", "train2017", "trainset", "test-images" …"""

from __future__ import annotations

import re
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


def split_name(name: str) -> SplitName | None:
    """The split that a folder's name may stand for; None if it names none, or several."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    found, rest = set(), []
    for word in re.findall(r"[^\W_]+", words):
        splits = [split for split, pattern in _OF_SPLIT.items() if pattern.fullmatch(word)]
        found.update(splits)
        if not splits and not _NOTHING.fullmatch(word):
            rest.append(word)
    if found == {"train", "validation"}:  # "train_val": all that may be trained on
        found = {"train"}
    return SplitName(found.pop(), tuple(rest)) if len(found) == 1 else None
