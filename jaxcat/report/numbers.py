"""Numbers and names as the page shows them."""

from __future__ import annotations


def percent(share: float, digits: int = 1) -> str:
    """A share as per cent: 0.9312 → `93.1 %`. It is never rounded to all or to nothing."""
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        text = f"{100 - 10**-digits:.{digits}f}"
    if share > 0 and float(text) == 0:
        text = f"< {10**-digits:.{digits}f}"
    return f"{text} %"


def between(interval: tuple[float, float]) -> str:
    """The two ends of a 95 % interval of a share: `95 % interval 91.8 to 94.9 %`."""
    low, high = (f"{100 * end:.1f}" for end in interval)
    return f"95 % interval {low} to {high} %"


def short(name: str) -> str:
    """A name among others, with at most 40 characters."""
    return name if len(name) <= 40 else f"{name[:39]}…"
