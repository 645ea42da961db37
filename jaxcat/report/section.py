"""What a section of the page is."""

from __future__ import annotations

from typing import Any, NamedTuple


class Section(NamedTuple):
    """One section.

    Attributes:
        identifier: of its element, letters only.
        title: its heading.
        reading: one sentence that says how to read it.
        template: the file in `templates/` that shows it; it gets `values`, and macros of `parts.html` by import.
        values: names in the template. Texts in it are escaped by the template, and shown with what is not printable
            as escapes; `plots.Plot` is shown by the macro `plot`.
    """

    identifier: str
    title: str
    reading: str
    template: str
    values: dict[str, Any]
