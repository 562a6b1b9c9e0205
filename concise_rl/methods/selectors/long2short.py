"""Kimi k1.5's long2short: the shortest right answer, alone or against what is longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Choice, Preference, Sample, Selection, Selector
from concise_rl.methods.drawing import share_of
from concise_rl.options import choose


class Long2ShortKind(str, Enum):
    """Rows of the shortest right answers, or preference pairs."""

    shortest = "shortest"
    dpo = "dpo"


@dataclass
class Long2Short(Selector):
    """The shortest right answer of each problem, the first of several; problems without one are dropped.

    Source: Kimi k1.5, arXiv 2501.12599 section 2.4, which takes 8 samples a problem. Under `dpo` that answer is
    preferred to

        every wrong answer that is longer                  (shorter wrong ones are no negatives)
        every right answer with L >= ratio * L_chosen      compared exactly, 1.5 in the report

    Attributes:
        kind: `shortest` or `dpo`.
        ratio: how much longer a right answer must be to be rejected.

    Raises:
        UserError: an unknown kind, or a ratio of 1 or below.
    """

    kind: Long2ShortKind = Long2ShortKind.shortest
    ratio: float = 1.5

    def __post_init__(self) -> None:
        self.kind = choose("Long2Short.kind", Long2ShortKind, self.kind)
        if not self.ratio > 1:
            raise UserError(f"Long2Short.ratio={self.ratio}: must be above 1, 1.5 is the report's")

    def select(self, problems: Mapping[str, Sequence[Sample]]) -> Selection:
        """One row a problem, or the pairs of its shortest right answer."""
        best = [(shortest_right(samples), samples) for samples in problems.values()]
        if self.kind is Long2ShortKind.shortest:
            return [Choice(chosen) for chosen, _ in best if chosen]
        ratio = share_of(self.ratio)
        return [
            Preference(chosen, other)
            for chosen, samples in best
            if chosen
            for other in samples
            if other is not chosen
            and (other.length >= ratio * chosen.length if other.correct else other.length > chosen.length)
        ]


def shortest_right(samples: Sequence[Sample]) -> Sample | None:
    """The right sample of fewest tokens, the first of several; None where none is right."""
    return min((s for s in samples if s.correct), key=lambda s: s.length, default=None)
