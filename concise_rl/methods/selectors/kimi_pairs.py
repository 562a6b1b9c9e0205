"""Kimi k1.5's long2short DPO: the shortest right completion against what is longer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from concise_rl.errors import UserError
from concise_rl.methods.picking import NO_RIGHT, Dropped, PerProblem, Pick, right, shortest
from concise_rl.samples import Sample


@dataclass
class KimiPairs(PerProblem):
    """Kimi k1.5 (arXiv 2501.12599, long2short).

    chosen = the shortest right completion, the first of equals, of length L*;
    rejected = every wrong one with L > L*, and every right one with L >= ratio L*. A pair each.
    A shorter wrong answer is no negative: it must not teach to go on. Empty completions (L = 0) are lawful.

    Attributes:
        ratio: how much longer a right one must be; 1.5 in the paper. Compared in whole numbers.

    Raises:
        UserError: a ratio of 1 or less, by which the chosen one would be its own negative.
    """

    ratio: float = 1.5

    pairs = True

    def __post_init__(self) -> None:
        if not self.ratio > 1:
            raise UserError(f"KimiPairs.ratio={self.ratio}: give more than 1: a rejected right answer is longer")

    def pick(self, samples: Sequence[Sample], rng: random.Random) -> list[Pick] | Dropped:
        """A pair for each rejected one, or none."""
        candidates = right(samples)
        if not candidates:
            return Dropped(NO_RIGHT)
        best = shortest(candidates)
        much_longer = ceil(Fraction(str(self.ratio)) * best.length)
        rejected = [
            sample
            for sample in samples
            if sample.length > best.length and (not sample.correct or sample.length >= much_longer)
        ]
        if not rejected:
            return Dropped(f"nothing wrong is longer, nothing right {self.ratio} times as long")
        return [Pick(best, sample) for sample in rejected]
