"""Credit against the mean of the other completions of the group: RLOO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import group_count, group_mean, zero_where_out


@dataclass
class LeaveOneOut(Advantage):
    """Reward minus the mean reward of the group's other rows: an unbiased baseline.

    RLOO, arXiv 2402.14740.

        A_i = r_i - sum_{j != i} r_j / (n - 1)  =  (r_i - mean(r)) * n / (n - 1)

    n counts the rows of the group that count; with n = 1 nothing is left to compare with and the credit is 0. It is
    Dr.GRPO times n / (n - 1): only the scale differs while every group has the same n.
    """

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,)."""
        n_N = group_count(batch).to(torch.float64)
        factor_N = n_N / (n_N - 1).clamp(min=1)
        return Out(zero_where_out(batch, (value - group_mean(batch, value)) * factor_N))
