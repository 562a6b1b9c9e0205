"""TOPS's seed data: problems that are right at every effort, at lengths that differ."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from concise_rl.errors import UserError
from concise_rl.methods.picking import Dropped, PerProblem, Pick
from concise_rl.samples import Sample


@dataclass
class TopsSeed(PerProblem):
    """TOPS (arXiv 2502.18080): what teaches one model to think at several efforts.

    Of each edit the first completion. The problem is kept iff there are `efforts` of them, all are right, and sorted by
    length each is more than `gap` tokens longer than the one before. All of them are chosen, each with its own prompt.

    Attributes:
        efforts: how many edits a problem was sampled with.
        gap: tokens; exactly so many are too few.

    Raises:
        UserError: fewer than two efforts, or a negative gap.
    """

    efforts: int = 3
    gap: int = 300

    def __post_init__(self) -> None:
        if self.efforts < 2 or self.gap < 0:
            raise UserError(f"TopsSeed.efforts={self.efforts}, gap={self.gap}: need 2 efforts or more, a gap from 0")

    def pick(self, samples: Sequence[Sample], rng: random.Random) -> list[Pick] | Dropped:
        """A row for each effort, or none."""
        first: dict[str, Sample] = {}
        for sample in samples:
            first.setdefault(sample.edit, sample)
        if len(first) != self.efforts:
            return Dropped(f"not sampled at {self.efforts} efforts")
        if not all(sample.correct for sample in first.values()):
            return Dropped("not right at every effort")
        lengths = sorted(sample.length for sample in first.values())
        if any(longer - shorter <= self.gap for shorter, longer in pairwise(lengths)):
            return Dropped(f"two efforts are {self.gap} tokens apart or less")
        return [Pick(sample) for sample in first.values()]
