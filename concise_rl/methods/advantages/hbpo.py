"""HBPO's credit: a row against its group, and its subgroup against what its budget promises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.shapers.hbpo import budget_reward, longest
from concise_rl.methods.statistics import group_count, z_score, zero_where_out
from concise_rl.options import Variant, choose


@dataclass
class HbpoCredit(Advantage):
    """A = (r - mean) / (sd + epsilon) + w (mu_b - f2(b)), by group; mu_b is the mean of its rows of budget b.

    f2(b) = beta cos(pi b / 2 M) is what a right row within its budget earns, so the second term is 0 where a whole
    subgroup is right within its budget, and negative elsewhere: right rows of a subgroup lose with its wrong ones.

    `variant=paper` has w = 1. The released code adds the second term twice, w = 2.

    Rows that do not count are in no mean and get 0, a group of one gets 0.

    Source: HBPO, arXiv 2507.15844 section 3.3 and algorithm 1; zju-real/hbpo.

    Attributes:
        beta: as in the shaper.
        max_length: M, as in the shaper; None takes each row's own limit.
        epsilon: added to the deviation, in units of reward.
        variant: `paper` or `code`.

    Raises:
        UserError: a field that is not positive.
    """

    beta: float = 4.0
    max_length: int | None = None
    epsilon: float = 1e-6
    variant: Variant = Variant.paper

    def __post_init__(self) -> None:
        self.variant = choose("HbpoCredit.variant", Variant, self.variant)
        for name in ("beta", "epsilon"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(f"HbpoCredit.{name}={getattr(self, name)}: must be positive")
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"HbpoCredit.max_length={self.max_length}: must be 1 or more; null is the row's limit")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"parts.budget"})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,)."""
        budgets = batch.part("budget")
        between = z_score(batch, value, epsilon=self.epsilon)
        promised = budget_reward(budgets, longest(batch, self.max_length), self.beta)
        within = self._subgroup_means(batch, value, budgets) - promised
        credit = between + (1 if self.variant is Variant.paper else 2) * within
        credit = torch.where(group_count(batch) > 1, credit, 0.0)
        return Out(zero_where_out(batch, credit), {"hbpo/intra_mean": float(within[batch.counts].mean().nan_to_num())})

    def _subgroup_means(self, batch: RolloutBatch, value: Tensor, budgets: Tensor) -> Tensor:
        """Mean reward of the rows of the same group and budget that count, (N,)."""
        budgets_PG, counts_PG = batch.by_group(budgets), batch.by_group(batch.counts)
        same_PGG = (budgets_PG[:, :, None] == budgets_PG[:, None, :]) & counts_PG[:, None, :]
        sums_PG = torch.where(same_PGG, batch.by_group(value)[:, None, :], 0.0).sum(dim=2)
        return (sums_PG / same_PGG.sum(dim=2).clamp(min=1)).reshape(-1)
