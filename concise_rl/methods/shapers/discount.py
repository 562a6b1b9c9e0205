"""Discounted reward: every thought token makes what a right answer earns a little smaller."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where

FORMAT = "format"
"""The part of the reward that is not discounted, where the verifier gives one."""


@dataclass
class Discount(Shaper):
    """Discounts the reward once for each thought token, its format part left out.

        reward = gamma^K * (reward - r_f) + r_f

    K are the thought tokens of the row (`think_lengths`), r_f is `parts["format"]`, 0 where the batch has none. A
    reward of 0 stays 0, so wrong answers are left alone. A negative one is *softened* by length, so that a long wrong
    answer is the better one: `discount/softened_frac` counts these rows; keep outcomes at 0 and 1.

    Source: arXiv 2510.23486; no code was released.

    Attributes:
        gamma: factor a thought token, in (0, 1]; 0.9999 halves the reward after 6931 tokens.

    Raises:
        UserError: gamma is not above 0 and at most 1.
    """

    gamma: float = 0.9999

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise UserError(f"Discount.gamma={self.gamma}: must be above 0 and at most 1; above 1 it pays for length")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,), discounted."""
        format_N = batch.parts.get(FORMAT, torch.zeros_like(value))
        factor_N = self.gamma ** batch.think_lengths.double()
        earned_N = value - format_N
        metrics = {
            "discount/factor_mean": mean_where(factor_N, batch.counts),
            "discount/softened_frac": mean_where(earned_N < 0, batch.counts),
        }
        return Out(torch.where(batch.counts, factor_N * earned_N + format_N, value), metrics)
