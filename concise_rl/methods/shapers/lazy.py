"""Short-RL's lazy length penalty: press on length only while accuracy is about as good as it ever was."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_max, group_min, mean_where, right

ROUNDING = 1e-12
"""A step exactly `acc_tol` below the best is open, although 0.65 - 0.05 is a little above 0.6 in binary."""


@dataclass
class Lazy(Shaper):
    """Pays right answers by length, within a tolerance, in steps whose accuracy is near the best so far.

        best = max(best * (1 - best_decay), acc)       acc: share of right rows of the step
        gate: acc >= best - acc_tol                    closed: no row gains or loses anything
        right, L <= shortest + tau:   reward += 0.5
        right, beyond:                reward += 0.5 - (L - shortest) / (longest - shortest + 1e-5)
        wrong:                        reward as it came

    Shortest and longest are those of the group's right rows. The best is renewed before the step is scored, so a step
    that sets it is always open. A lone right answer gains 0.5, and the longest loses about 0.5. A step in which no
    row counts changes nothing.

    Source: arXiv 2505.12284, lblankl/Short-RL at 07cea8a, where the best is a global of each process that no
    checkpoint holds. There one lucky step may close the gate for good; `best_decay` lets the best sink again, which is
    not in the paper.

    Attributes:
        tau: tokens beyond the shortest that are free; 100 for maths, 200 for logic puzzles.
        acc_tol: how far accuracy may lie below the best.
        best_decay: share of the best that a step forgets.

    Raises:
        UserError: a field is out of range.
    """

    tau: int = 100
    acc_tol: float = 0.05
    best_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.tau < 0:
            raise UserError(f"Lazy.tau={self.tau}: must be 0 tokens or more, 100 is the paper's for maths")
        if not 0 <= self.acc_tol < math.inf:
            raise UserError(f"Lazy.acc_tol={self.acc_tol}: must be 0 or more, 0.05 is the paper's")
        if not 0 <= self.best_decay < 1:
            raise UserError(f"Lazy.best_decay={self.best_decay}: must be in 0 (never forget) up to 1, the end excluded")

    @property
    def across_groups(self) -> bool:
        """The gate looks at the whole step."""
        return True

    def init(self) -> float:
        """The best accuracy so far."""
        return 0.0

    def __call__(self, batch: RolloutBatch, value: Tensor, state: float) -> tuple[Out, float]:
        """Renew the best, then score the step."""
        if not bool(batch.counts.any()):
            return Out(value.clone(), {"lazy/open": 0.0, "lazy/best": state}), state
        accuracy = mean_where(batch.correct, batch.counts)
        best = max(state * (1 - self.best_decay), accuracy)
        is_open = accuracy >= best - self.acc_tol - ROUNDING
        shaped_N = value + self._length_reward(batch) if is_open else value.clone()
        return Out(shaped_N, {"lazy/open": float(is_open), "lazy/best": best}), best

    def _length_reward(self, batch: RolloutBatch) -> Tensor:
        right_N = right(batch)
        length_N = batch.lengths.double()
        over_N = length_N - group_min(batch, length_N, right_N)
        span_N = group_max(batch, length_N, right_N) - group_min(batch, length_N, right_N)
        beyond_N = torch.where(over_N > self.tau, over_N / (span_N + 1e-5), 0.0)
        return torch.where(right_N, 0.5 - beyond_N, 0.0)
