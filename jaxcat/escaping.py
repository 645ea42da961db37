"""The one place that escapes text from outside, such as names of classes and files: a function for each target.

HTML is escaped by Jinja2 (report, serve) or by `export/web/page.py`; plain text for a person by `wording.printable`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Any

# JSON in a page ------------------------------------------------------------------------------------------------------

# What would end a script element or begin a comment in one, and the two line ends that old JavaScript does not take in
# a string. In JSON these stand in strings only, where \uXXXX is the same character.
_IN_PAGES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def for_json_in_page(value: Any) -> str:
    """A value as JSON that can stand in a script element of a page; reading it gives the same value.

    Raises:
        ValueError: there is a number in it that JSON does not have, such as NaN.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_IN_PAGES)


# cells of tables ------------------------------------------------------------------------------------------------------

# A spreadsheet takes a cell that begins with one of these for a formula (the last four are their full-width forms).
_FORMULA = "[=+\\-@\t\r\n＝＋－＠]"
_RUN_BY_SPREADSHEETS = re.compile(f"'*{_FORMULA}")
_ESCAPED = re.compile(f"'+{_FORMULA}")


def for_cell(text: str) -> str:
    """The text with an apostrophe before it if a spreadsheet would run it as a formula; `from_cell` is the inverse.

    A text that looks escaped already gets one more apostrophe, so that reading gives back what was written.
    """
    return f"'{text}" if _RUN_BY_SPREADSHEETS.match(text) else text


def from_cell(text: str) -> str:
    """The text that `for_cell` made this cell from."""
    return text[1:] if _ESCAPED.match(text) else text


# commands ------------------------------------------------------------------------------------------------------------


def for_shell(*words: str) -> str:
    """Words of a command, quoted for a shell and readable on one line.

    A word with line ends, control characters, marks of writing direction or undecodable bytes is written `$'…'` with
    an escape for each of their bytes, as bash, zsh and POSIX 2024 read it.
    """
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_bytewise(word)}'" for word in words)


def _bytewise(word: str) -> str:
    pieces = (
        f"\\{c}" if c in "\\'" else c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c))
        for c in word
    )
    # A character after \xHH could be read as a further digit of it: the quotes end there and begin anew.
    return re.sub(r"(\\x[0-9a-f]{2})(?=[0-9A-Fa-f])", r"\1'$'", "".join(pieces))


# Python --------------------------------------------------------------------------------------------------------------


def for_python(value: Any) -> str:
    """A text, number, truth value or None as a literal in Python source; reading it gives the same value."""
    return repr(value)
