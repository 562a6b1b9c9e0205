"""Nemotron-Cascade's filter between epochs: problems at 0 % or 100 % pause, a few of them come back."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from concise_rl.errors import UserError
from concise_rl.methods.drawing import ByEpoch, share_of


@dataclass
class Readmit(ByEpoch):
    """An epoch has the prompts that were sometimes right, and a random few of those never or always right.

    Source: arXiv 2512.13607, maths reinforcement learning. By the last pass rate of each prompt:

        0 < rate < 1    comes
        rate 0          floor(hard * n0 + 1/2) of the n0 come
        rate 1          floor(easy * n1 + 1/2) of the n1 come

    chosen without replacement by (seed, epoch); the counting rule is ours. A prompt that pauses keeps its rate and may
    be chosen for a later epoch. The first epoch has every prompt.

    State: `epoch`, `seen` in it, `left_out` of it, last `rates`.

    Attributes:
        hard: share of the never solved that comes back, 10 % in the paper.
        easy: share of the always solved that comes back, 1 % in the paper.
        seed: of the choice.

    Raises:
        UserError: a share out of 0 to 1.
    """

    hard: float = 0.1
    easy: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hard", "easy"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"Readmit.{name}={getattr(self, name)}: the share that comes back is from 0 to 1")

    def left_out(self, rates: Mapping[str, float], epoch: int) -> Collection[str]:
        """Those at 0 and at 1 that were not chosen."""
        rng = random.Random(f"{self.seed}/{epoch}")
        out: set[str] = set()
        for rate, share in ((0.0, self.hard), (1.0, self.easy)):
            there = sorted(key for key, found in rates.items() if found == rate)
            n = int(share_of(share) * len(there) + share_of(0.5))
            out |= set(there) - set(rng.sample(there, n))
        return out
