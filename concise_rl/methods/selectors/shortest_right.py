"""Rejection sampling by length: of each problem the shortest right completion."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from concise_rl.methods.picking import NO_RIGHT, Dropped, PerProblem, Pick, right, shortest
from concise_rl.samples import Sample


@dataclass
class ShortestRight(PerProblem):
    """Kimi k1.5 (arXiv 2501.12599, long2short) takes it of 8 samples, TOPS (2502.18080) of one for each effort.

    chosen = argmin L over the right completions, the first of equals. A problem without one is dropped.
    """

    def pick(self, samples: Sequence[Sample], rng: random.Random) -> list[Pick] | Dropped:
        """One row, or none."""
        candidates = right(samples)
        return [Pick(shortest(candidates))] if candidates else Dropped(NO_RIGHT)
