"""One logged number: its names, unit and meaning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Metric:
    """One logged number.

    Attributes:
        key: its name in metrics.jsonl and summary.json.
        label: its name for people.
        unit: the unit shown; `%` means that the stored number is a fraction and people see it times 100.
        definition: formula and denominator, in the axes of `concise_rl.batch`.
        source: where the number is made.
        better: the direction that is an improvement, empty where there is none.
    """

    key: str
    label: str
    unit: str
    definition: str
    source: str
    better: Better = ""

    def text(self, value: float | None) -> str:
        """The value for people, without its unit's name but with `%`; a dash where there is none."""
        if value is None or not math.isfinite(value):
            return "–"
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        if self.unit in ("tokens", "s"):
            return f"{value:.1f}"
        if self.unit == "ratio":
            return f"{value:.2f}"
        if self.unit == "count":
            return f"{value:.0f}"
        return f"{value:.3g}" if 0 < abs(value) < 0.01 else f"{value:.3f}"
