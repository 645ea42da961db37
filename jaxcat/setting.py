"""What one setting is: its default, value in older runs, meaning, unit, bounds, and whether it may change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxcat.wording import not_one_of


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the table of settings, `jaxcat.settings.SETTINGS`.

    Attributes:
        default: value in a new run; its type, bool, int, float or str, is the type of the setting.
        before: value that reproduces runs from before the setting existed; `completed` adds it to their checkpoints,
            which lack the setting. Equal to the default if the setting has always existed.
        meaning: text for `--help`.
        unit: of a number.
        low, above, high: bounds of a number: at least `low`, more than `above`, at most `high`.
        choices: value → meaning, if the list of values is fixed and not the table of an implementation.
        may_change: whether a run may continue with another value; true only for settings about its length or files.
    """

    default: Any
    _: dataclasses.KW_ONLY
    before: Any
    meaning: str
    unit: str = ""
    low: float = 0
    above: float = -math.inf
    high: float = math.inf
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    may_change: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with a value, or "" if it is valid."""
        kind = type(self.default)
        if type(value) is not kind and not (kind is float and type(value) is int):
            return f"must be of type {kind.__name__}"
        if self.choices:
            return not_one_of(value, self.choices)
        if kind not in (int, float):
            return ""
        if not -math.inf < value < math.inf:
            return "must be a finite number"
        if value < self.low or value <= self.above or value > self.high:
            least = f"above {_number(self.above)}" if self.above >= self.low else f"at least {_number(self.low)}"
            return f"must be {least}" + (f" and at most {_number(self.high)}" if math.isfinite(self.high) else "")
        return ""


def _number(bound: float) -> str:
    return f"{bound:,.0f}" if bound == round(bound) else f"{bound:g}"
