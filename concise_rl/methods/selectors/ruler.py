"""Ruler: prompts that ask for a length, made from answers that have it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Choice, Sample, Selection, Selector


class Band(NamedTuple):
    """Words above `low` and up to `high`."""

    low: float
    high: float

    def holds(self, words: int) -> bool:
        return self.low < words <= self.high


class Level(NamedTuple):
    """A length that a prompt asks for: what meets it precisely and flexibly, and which answers train it."""

    name: str
    precise: Band
    flexible: Band
    training: Band


_MORE = Band(800, math.inf)
LEVELS = (
    Level("10", Band(0, 20), Band(0, 20), Band(5, 15)),
    Level("30", Band(20, 40), Band(20, 40), Band(25, 35)),
    Level("50", Band(40, 60), Band(40, 60), Band(45, 55)),
    Level("80", Band(70, 90), Band(60, 100), Band(75, 85)),
    Level("150", Band(130, 170), Band(100, 200), Band(135, 155)),
    Level("300", Band(280, 320), Band(200, 400), Band(295, 305)),
    Level("500", Band(450, 550), Band(400, 600), Band(495, 505)),
    Level("700", Band(630, 770), Band(600, 800), Band(695, 705)),
    Level(">800", _MORE, _MORE, _MORE),
)
"""Words, cut at white space. Source: arXiv 2409.18943; Geaming2002/Ruler."""


def meets(words: int, level: str, *, flexible: bool = False) -> bool:
    """Whether an answer has the length that its prompt asked for: Ruler's PM, or FM where `flexible`.

    Raises:
        UserError: there is no such level.
    """
    found = next((each for each in LEVELS if each.name == level), None)
    if found is None:
        raise UserError(f"level={level!r}: choose from {', '.join(each.name for each in LEVELS)}")
    return (found.flexible if flexible else found.precise).holds(words)


@dataclass
class Ruler(Selector):
    """The right answers whose words lie in a training band of `LEVELS`, their prompts asking for it.

    Source: arXiv 2409.18943; Geaming2002/Ruler, which takes answers of any kind; here those that are right.

    Attributes:
        template: put behind the prompt; `{level}` becomes the level's name.

    Raises:
        UserError: the template has no `{level}`.
    """

    template: str = "[MLT:{level}]"

    def __post_init__(self) -> None:
        if "{level}" not in self.template:
            raise UserError(f"Ruler.template={self.template!r}: must hold {{level}}, where the length goes")

    def select(self, problems: Mapping[str, Sequence[Sample]]) -> Selection:
        """A row for each right answer that has one of the lengths."""
        right = [s for samples in problems.values() for s in samples if s.correct]
        return [
            Choice(s, suffix=self.template.replace("{level}", level.name))
            for s in right
            for level in LEVELS
            if level.training.holds(s.words)
        ]
