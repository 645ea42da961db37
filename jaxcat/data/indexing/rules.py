"""The versions of the indexing rules, which say what is a record, how it is named and which folders are splits.

A run keeps the rules that it began with, so change none of them: give new rules a new number.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxcat.data.images import heif
from jaxcat.data.images.formats import SUFFIXES_1, SUFFIXES_2, SUFFIXES_3


class Rules(NamedTuple):
    """In what one version differs from others. Rules 1 are also in `rules_1.py`.

    Attributes:
        suffixes: of the files that are images, in lower case.
        refuse_mixed: whether a folder of classes beside folders of images is refused, see `layout.py`.
        stricter: whether more of what programs leave is skipped, and more tables with an unused column of splits are
            refused.
    """

    suffixes: frozenset[str]
    refuse_mixed: bool = False
    stricter: bool = False


RULES = {
    1: Rules(SUFFIXES_1),
    2: Rules(SUFFIXES_2),
    3: Rules(SUFFIXES_3),
    4: Rules(SUFFIXES_2, refuse_mixed=True),
    5: Rules(SUFFIXES_3, refuse_mixed=True),
    6: Rules(SUFFIXES_2, refuse_mixed=True, stricter=True),
    7: Rules(SUFFIXES_3, refuse_mixed=True, stricter=True),
}
INDEX_RULES = 7 if heif.installed() else 6  # of new runs; installing pi-heif later, which reads HEIC, changes no run
