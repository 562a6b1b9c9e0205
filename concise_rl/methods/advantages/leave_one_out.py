"""Credit against the mean of the other completions of the group: RLOO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.advantages.base import group_mean, zero_unscorable


@dataclass
class LeaveOneOut:
    """Reward minus the mean reward of the group's other rows: an unbiased baseline.

    RLOO, arXiv 2402.14740.

        A_i = r_i - sum_{j != i} r_j / (n - 1)  =  (r_i - mean(r)) * n / (n - 1)

    n counts the scorable rows of the group; with n = 1 nothing is left to compare with and the credit is 0. It is
    Dr.GRPO times n / (n - 1): only the scale differs while every group has the same n.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: RolloutBatch, reward: Tensor) -> Tensor:
        """Credit (N,), from the shaped reward (N,)."""
        n_P = batch.by_group(batch.scorable).sum(dim=1).to(reward.dtype)
        factor_N = batch.per_row(n_P / (n_P - 1).clamp(min=1))
        return zero_unscorable(batch, (reward - group_mean(batch, reward)) * factor_N)
