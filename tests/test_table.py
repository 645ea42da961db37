"""Tables of paths and labels: read as they were meant, or refused with the line that is wrong."""

from __future__ import annotations

import itertools

import pytest

from jaxcat.data.table import escape_cell, unescape_cell


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "\nx", "'=x", "''-x", "＝x"])
def test_a_formula_gets_an_apostrophe_and_loses_it_again(text):
    assert escape_cell(text) == "'" + text
    assert unescape_cell(escape_cell(text)) == text


def test_every_short_text_survives_and_no_two_are_written_alike():
    texts = ["".join(letters) for n in range(4) for letters in itertools.product("'=-@x", repeat=n)]
    written = [escape_cell(text) for text in texts]
    assert len(set(written)) == len(texts)
    assert [unescape_cell(cell) for cell in written] == texts
    assert not [cell for cell in written if cell[:1] in ("=", "-", "@")]
    assert escape_cell("it's") == "it's"
    assert escape_cell("'quoted'") == "'quoted'"
