"""GRPO-lambda: only the groups that the model solves best pay for length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_mean, group_std, mean_where, pass_rate


@dataclass
class TopLambda(Shaper):
    """Multiplies right rewards by a factor that falls with length, in the best groups of the step only.

    The groups of the step are ordered by their share of right rows, the best first, ties by their place in the batch.
    In the first max(1, ceil(lam * P)) of them, with L in sampled tokens and sg(z) = 1 / (1 + exp(-z)):

        right: reward *= 1 - alpha * sg((L - mean_C) / (pd_C + 1e-7))            wrong: 0

    mean_C and pd_C are mean and population deviation over the right rows of the group. All other groups keep their
    reward. P is the number of groups with at least one row that counts; a group without any is never among the best.

    One right row, or right rows of one length, get 1 - alpha/2. A best group with nothing right is all 0.

    Source: GRPO-lambda, arXiv 2505.18086 (not the method of that name that works with lambda-returns); no code was
    released. alpha is that of a community port, which also pays the wrong rows of the best groups; here they get 0.

    Attributes:
        lam: share of the groups that pay for length, in (0, 1].
        alpha: the most that length can cost, in [0, 1].

    Raises:
        UserError: a field is out of its range.
    """

    lam: float = 0.2
    alpha: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.lam <= 1:
            raise UserError(f"TopLambda.lam={self.lam}: the share of groups that pay for length is above 0, at most 1")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"TopLambda.alpha={self.alpha}: must be in 0..1; above 1 a long right answer falls below 0")

    @property
    def across_groups(self) -> bool:
        """The best groups are found among those of the step."""
        return True

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,), changed in the best groups."""
        top_N = batch.per_row(self._best(batch))
        length_N = batch.lengths.double()
        spread_N = group_std(batch, length_N, batch.correct, population=True)
        z_N = (length_N - group_mean(batch, length_N, batch.correct)) / (spread_N + 1e-7)
        priced_N = torch.where(batch.correct, value * (1 - self.alpha * torch.sigmoid(z_N)), 0.0)
        metrics = {
            "top_lambda/top_frac": mean_where(top_N, batch.counts),
            "top_lambda/top_accuracy": mean_where(batch.correct, batch.counts & top_N),
        }
        return Out(torch.where(top_N & batch.counts, priced_N, value), metrics)

    def _best(self, batch: RolloutBatch) -> Tensor:
        """(P,) bool."""
        some_P = batch.by_group(batch.counts).any(dim=1)
        rate_P = torch.where(some_P, batch.by_group(pass_rate(batch))[:, 0], -1.0)
        # A decimal share times a number of groups is exact only as a fraction: 0.07 * 100 is 7.000000000000001.
        n_best = max(1, math.ceil(Fraction(str(self.lam)) * int(some_P.sum())))
        best_P = torch.zeros_like(some_P)
        best_P[torch.argsort(rate_P, descending=True, stable=True)[:n_best]] = True
        return best_P & some_P
