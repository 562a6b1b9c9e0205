"""Train Long, Think Short: a length reward that peaks at a budget, and a budget that shrinks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where


@dataclass
class Triangle(Shaper):
    """Replaces the reward by a weighted sum of correctness and a triangle in length around a shrinking budget.

        B(t) = max(1, B0 * gamma^floor(t / T)),  t = step
        tri = L / B  for L <= B,   1 - (L - B) / B  for B < L < 2B,   0 from 2B on
        reward = w_c * correct + w_l * tri + w_f * parts["format"]

    L is in sampled tokens, B is not rounded. Up to the budget **longer earns more**, and wrong rows earn it too, so a
    group of wrong rows is not without variance. A group of answers of exactly B tokens earns the most there is.

    The edit `budget_prompt` states B(t) in the prompt; the recipe takes its numbers from here.

    Source: arXiv 2508.08940; no code to be had. Printed weights are 0.6/0.3 and 0.3/0.6 for correctness/length.

    Attributes:
        B0: budget at step 0, in tokens.
        gamma: factor of the budget after every T steps, in (0, 1].
        T: steps that a budget holds.
        w_c, w_l, w_f: weights of correctness, length and format; with w_f = 0 the format is not needed.
        wrong_too: wrong rows earn the triangle.

    Raises:
        UserError: a field is out of its range.
    """

    B0: float = 256.0
    gamma: float = 0.7
    T: int = 100
    w_c: float = 0.6
    w_l: float = 0.3
    w_f: float = 0.0
    wrong_too: bool = True

    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.B0) and self.B0 >= 1):
            raise UserError(f"Triangle.B0={self.B0}: a budget is 1 token or more, 256 is the paper's")
        if not 0 < self.gamma <= 1:
            raise UserError(f"Triangle.gamma={self.gamma}: must be above 0 and at most 1, so that the budget shrinks")
        if self.T < 1:
            raise UserError(f"Triangle.T={self.T}: a budget holds for 1 step or more")
        for name in ("w_c", "w_l", "w_f"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"Triangle.{name}={getattr(self, name)}: a weight is 0 or more")

    @property
    def needs(self) -> frozenset[str]:
        """The format, where it has a weight."""
        return frozenset({PART_PREFIX + "format"} if self.w_f else ())

    def budget(self, step: int) -> float:
        """B(t), tokens."""
        return max(1.0, self.B0 * self.gamma ** (step // self.T))

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) from verdicts, lengths and the step."""
        length_N, budget = batch.lengths.double(), self.budget(batch.step)
        falling_N = torch.where(length_N < 2 * budget, 1 - (length_N - budget) / budget, 0.0)
        tri_N = torch.where(length_N <= budget, length_N / budget, falling_N)
        if not self.wrong_too:
            tri_N = torch.where(batch.correct, tri_N, 0.0)
        reward_N = self.w_c * batch.correct.double() + self.w_l * tri_N
        if self.w_f:
            reward_N = reward_N + self.w_f * batch.part("format")
        metrics = {
            "triangle/budget": budget,
            "triangle/length_reward_mean": mean_where(tri_N, batch.counts),
            "triangle/over_frac": mean_where(length_N > budget, batch.counts),
        }
        return Out(torch.where(batch.counts, reward_N, value), metrics)
