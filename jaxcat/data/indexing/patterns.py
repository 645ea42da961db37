"""Regular expressions that find a class or a group in a file's name: checked, and bounded in time."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from types import FrameType

from jaxcat.errors import ConfigError
from jaxcat.wording import printable

SECONDS = 5.0  # for one name; patterns like (a+)+ need more than the age of the universe
USUAL = r"^(.+?)[ ._(-]*\d+\)?\.\w+$"  # cat.0.jpg, Abyssinian_12.jpg, dog (3).png


class Pattern:
    """A pattern of a setting. It has one group, whose text is the class or group of a file.

    Attributes:
        of_path: whether the pattern has a slash, so that it is meant for a path and not for a file's name.
    """

    def __init__(self, setting: str, text: str):
        """Raises ConfigError if the text is no regular expression with one group."""
        self.of_path = "/" in text
        self._flag = f"--config.data.{setting}={printable(text)}"
        try:
            self._expression = re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(f"{self._flag}: not a regular expression: {error}") from error
        if self._expression.groups != 1:
            raise ConfigError(
                f"{self._flag}: it has {self._expression.groups} groups; it must have one, in parentheses, whose text "
                "is used, such as ^(cat|dog); write other parentheses as (?:…)"
            )

    def __str__(self) -> str:
        return self._flag

    def find(self, name: str) -> str:
        """What the group matches in a name, in Unicode's composed form; "" if nothing.

        Raises:
            ConfigError: the pattern takes too long.
        """
        found = self._search(name)
        return (found[1] or "") if found else ""

    def span(self, name: str) -> tuple[int, int]:
        """Where the text of `find` begins and ends in a name in Unicode's composed form; (-1, -1) if there is none.

        Raises what `find` raises.
        """
        found = self._search(name)
        return found.span(1) if found else (-1, -1)

    def _search(self, name: str) -> re.Match[str] | None:
        try:
            with _limited():
                return self._expression.search(unicodedata.normalize("NFC", name))
        except TimeoutError:
            raise ConfigError(
                f"{self._flag}: no answer within {SECONDS:g} s for {printable(name)}; a repetition in a repetition,"
                " such as (a+)+, takes for ever: write it as a+"
            ) from None


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raises TimeoutError in the block after `SECONDS`. Only in the main thread of a system with alarms."""
    possible = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not possible or signal.getitimer(signal.ITIMER_REAL)[0]:  # someone else waits for the alarm
        yield
        return
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError


def suggested(names: Sequence[str]) -> str:
    """A pattern that finds two or more classes of several images each in these names of files, or ""."""
    found = Counter(match[1] for name in names if (match := re.search(USUAL, name)))
    if found.total() == len(names) and len(found) >= 2 and min(found.values()) >= 2:
        return USUAL
    return ""
