"""The sections of the page, in their order."""

from __future__ import annotations

from collections.abc import Callable

from jaxcat.report.context import Context
from jaxcat.report.section import Section
from jaxcat.report.sections import comparison, confusion, curve, data, gallery, map, summary, trust

# Each gives its section, or None if there is nothing to show.
SECTIONS: tuple[Callable[[Context], Section | None], ...] = (
    summary.section_of,
    curve.section_of,
    comparison.section_of,
    confusion.section_of,
    gallery.section_of,
    trust.section_of,
    data.section_of,
    map.section_of,
)
