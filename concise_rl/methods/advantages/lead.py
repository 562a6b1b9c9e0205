"""GRPO-LEAD's credit: right answers to hard prompts count more, and so do wrong answers to easy ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import group_mean, mean_where, z_score, zero_where_out


@dataclass
class LeadCredit(Advantage):
    """GRPO's credit, weighed by how many rows of the group have a reward above 0.

        A = (r - mean(r)) / (std(r) + 1e-6)                   of the group, n - 1
        A *= w(q) where A > 0, else w(1 - q)                  q: share of the group's rows with r > 0
        w(x) = 0.4 + 1.1 / (1 + exp(10 * (x - 0.75)))

    w falls from 1.5 at 0 to 0.48 at 1. A group without variance gets 0, and so does a group of one, to which the
    released code gives r * w.

    Source: arXiv 2504.09696, aeroplanepaper/GRPO-LEAD at 9344bef.
    """

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,)."""
        credit_N = z_score(batch, value, epsilon=1e-6)
        share_N = group_mean(batch, value > 0)
        weight_N = weight(torch.where(credit_N > 0, share_N, 1 - share_N))
        metrics = {"lead/weight_mean": mean_where(weight_N, batch.counts)}
        return Out(zero_where_out(batch, credit_N * weight_N), metrics)


def weight(share_N: Tensor) -> Tensor:
    """w of a share in 0..1, from 1.5 down to 0.48."""
    return 0.4 + 1.1 * torch.sigmoid(-10 * (share_N - 0.75))
