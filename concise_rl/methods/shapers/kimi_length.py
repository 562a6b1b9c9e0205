"""Kimi k1.5's length reward: the shortest of the group gains a half, the longest loses a half."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where


@dataclass
class KimiLength(Shaper):
    """Adds a length reward that is linear between the shortest and the longest answer of the group.

        lam = 1/2 - (l - shortest) / (longest - shortest)
        reward += weight * (lam if correct else min(0, lam))

    Shortest and longest are those of all rows of the group that count, right and wrong. Where they are equal (also
    for G = 1) the term is 0. Before `warmup_steps` it is 0. A group of wrong answers only still ranks them: the
    longest loses weight/2 against the shorter half.

    Source: arXiv 2501.12599 section 2.3.3; no code was released, and the weight is not published.

    Attributes:
        weight: of the length reward.
        warmup_steps: optimizer steps without it.

    Raises:
        UserError: a field is negative or not finite.
    """

    weight: float = 1.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"KimiLength.weight={self.weight}: must be 0 or more; below 0 it would pay for length")
        if self.warmup_steps < 0:
            raise UserError(f"KimiLength.warmup_steps={self.warmup_steps}: must be 0 (from the first step) or more")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) plus the group's length reward."""
        length_PG = batch.by_group(batch.lengths).double()
        counts_PG = batch.by_group(batch.counts)
        shortest_P1 = length_PG.masked_fill(~counts_PG, math.inf).amin(dim=1, keepdim=True)
        longest_P1 = length_PG.masked_fill(~counts_PG, -math.inf).amax(dim=1, keepdim=True)
        span_P1 = longest_P1 - shortest_P1
        lam_PG = 0.5 - (length_PG - shortest_P1) / span_P1
        lam_PG = torch.where((span_P1 > 0) & counts_PG, lam_PG, 0.0)
        lam_PG = torch.where(batch.by_group(batch.correct), lam_PG, lam_PG.clamp(max=0.0))
        active = batch.step >= self.warmup_steps
        length_reward_N = self.weight * active * lam_PG.reshape(-1)
        metrics = {
            "kimi_length/length_reward_mean": mean_where(length_reward_N, batch.counts),
            "kimi_length/span_mean": mean_where(span_P1, counts_PG.any(dim=1, keepdim=True)),
        }
        return Out(value + length_reward_N, metrics)
