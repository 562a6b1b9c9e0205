"""TOPS's iterative DPO: against the longest wrong completion, and against one that thought too little."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from concise_rl.methods.picking import NO_RIGHT, Dropped, PerProblem, Pick, longest, right, shortest, wrong
from concise_rl.samples import Sample


@dataclass
class TopsPairs(PerProblem):
    """TOPS (arXiv 2502.18080), of 8 samples a problem.

    chosen = the shortest right completion; rejected = the longest wrong one, and the shortest wrong one where it is
    shorter than the chosen: it thought too little. One that is both stands once. No right or no wrong one: dropped.
    """

    pairs = True

    def pick(self, samples: Sequence[Sample], rng: random.Random) -> list[Pick] | Dropped:
        """One pair or two, or none."""
        candidates, failures = right(samples), wrong(samples)
        if not candidates:
            return Dropped(NO_RIGHT)
        if not failures:
            return Dropped("no wrong answer")
        best, rejected, hasty = shortest(candidates), longest(failures), shortest(failures)
        pairs = [Pick(best, rejected)]
        if hasty.length < best.length and hasty != rejected:
            pairs.append(Pick(best, hasty))
        return pairs
