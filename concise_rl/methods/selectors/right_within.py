"""On-policy SFT: all right completions that kept within a limit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from concise_rl.errors import UserError
from concise_rl.methods.picking import NO_RIGHT, Dropped, PerProblem, Pick, right
from concise_rl.samples import Sample


@dataclass
class RightWithin(PerProblem):
    """On-Policy SFT (arXiv 2602.13407): samples under a cap, and trains on every right one, unweighted.

    chosen = all right completions with L <= limit and not truncated. A problem without one is dropped.

    Attributes:
        limit: tokens; the paper samples 32 under 3500. None keeps every length.

    Raises:
        UserError: a limit below 1.
    """

    limit: int | None = 3500

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"RightWithin.limit={self.limit}: give a number of tokens, or null for no limit")

    def pick(self, samples: Sequence[Sample], rng: random.Random) -> list[Pick] | Dropped:
        """A row for each, or none."""
        candidates = right(samples)
        within = [s for s in candidates if not s.truncated and (self.limit is None or s.length <= self.limit)]
        if within:
            return [Pick(sample) for sample in within]
        return Dropped(f"no right answer within {self.limit} tokens" if candidates else NO_RIGHT)
