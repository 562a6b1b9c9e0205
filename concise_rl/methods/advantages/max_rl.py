"""MaxRL: the rarer a right answer, the more it earns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import group_mean, zero_where_out


@dataclass
class MaxRl(Advantage):
    """Reward against the group's mean, over that mean; 0 where the mean is 0 or less.

        A_i = (r_i - mean(r)) / mean(r)

    Source: arXiv 2602.02710; PrimeIntellect-ai/prime-rl, NovaSky-AI/SkyRL. With rewards of 0 and 1 a right row gets
    1/p - 1 and a wrong one -1: what is maximised is near the log of the pass rate, so hard prompts weigh more than
    under GRPO. Rewards below 0 have no such meaning; they warn.
    """

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,)."""
        if bool((value[batch.counts] < 0).any()):
            warnings.warn(
                "advantage.max_rl saw a negative reward: it divides by the group's mean, which then says nothing of "
                "how hard the prompt is; use rewards of 0 or more",
                stacklevel=2,
            )
        mean_N = group_mean(batch, value)
        credit_N = torch.where(mean_N > 0, (value - mean_N) / torch.where(mean_N > 0, mean_N, 1.0), 0.0)
        return Out(zero_where_out(batch, credit_N))
