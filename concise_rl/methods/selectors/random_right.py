"""The control: of each problem a right completion at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from concise_rl.methods.picking import NO_RIGHT, Dropped, PerProblem, Pick, right
from concise_rl.samples import Sample


@dataclass
class RandomRight(PerProblem):
    """What rejection sampling does without any choice by length; TOPS (arXiv 2502.18080) compares itself with it.

    chosen = a right completion, each equally likely. A problem without one is dropped.
    """

    def pick(self, samples: Sequence[Sample], rng: random.Random) -> list[Pick] | Dropped:
        """One row, or none."""
        candidates = right(samples)
        return [Pick(rng.choice(candidates))] if candidates else Dropped(NO_RIGHT)
