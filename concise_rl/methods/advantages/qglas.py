"""QGLAS: short good answers gain a bonus sized by how far the group's rewards spread; no sign ever flips."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import (
    group_max,
    group_mean,
    group_min,
    group_quantile,
    group_std,
    zero_where_out,
)
from concise_rl.options import choose


class Inner(str, Enum):
    """The credit that the bonus is added to: centred reward, or GRPO's, over the group's sample deviation."""

    centred = "centred"
    group = "group"


@dataclass
class Qglas(Advantage):
    """Adds to the positive credits of a group a bonus for being shorter than their mean.

    The published text has no arXiv id that is known here; no code is published.

        A = inner credit; over the rows P with A > 0:   Lref = mean_P(L)
        h = clip((Lref - L) / (Lref + 1e-8), 0, c) / c  on P, else 0
        s_all = max(r) - Q25(r) over all rows (quantile in a straight line)      s_P = max_P(r) - min_P(r)
        beta  = bmin + (bmax - bmin) * (1 - clip(s_P / (s_all + 1e-8), 0, 1))
        A     = A + (s_all / sigma) * beta * h

    sigma is the inner credit's own denominator: 1 for `centred`, the group's sample deviation + 1e-4 for `group`. The
    bonus is never negative and only positive credits get it, so no credit changes its sign. The alike the good rewards
    are, the more length decides among them. A group without a positive credit keeps its credit.

    Attributes:
        inner: `centred` or `group`.
        c: share of Lref that a row must save for the full bonus, above 0.
        bmin, bmax: weight of the bonus where good rewards differ as much as all, and where they are equal.

    Raises:
        UserError: an unknown inner credit, or a number out of its range.
    """

    inner: Inner = Inner.centred
    c: float = 0.5
    bmin: float = 0.3
    bmax: float = 0.6

    def __post_init__(self) -> None:
        self.inner = choose("Qglas.inner", Inner, self.inner)
        if not 0 < self.c <= 1:
            raise UserError(f"Qglas.c={self.c}: the share of the reference length is above 0 and at most 1")
        if not 0 <= self.bmin <= self.bmax < float("inf"):
            raise UserError(f"Qglas.bmin={self.bmin}, bmax={self.bmax}: need 0 <= bmin <= bmax")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,)."""
        sigma_N = group_std(batch, value) + 1e-4 if self.inner is Inner.group else torch.ones_like(value)
        credit_N = zero_where_out(batch, (value - group_mean(batch, value)) / sigma_N)
        good_N = credit_N > 0
        reference_N = group_mean(batch, batch.lengths, good_N)
        saved_N = (reference_N - batch.lengths) / (reference_N + 1e-8)
        h_N = torch.where(good_N, saved_N.clamp(0.0, self.c) / self.c, 0.0)
        top_N = group_max(batch, value)
        spread_N = top_N - group_quantile(batch, value, 0.25)
        spread_good_N = group_max(batch, value, good_N) - group_min(batch, value, good_N)
        beta_N = self.bmin + (self.bmax - self.bmin) * (1 - (spread_good_N / (spread_N + 1e-8)).clamp(0.0, 1.0))
        bonus_N = torch.where(good_N, spread_N / sigma_N * beta_N * h_N, 0.0)
        assert not bool((bonus_N < 0).any()), "a bonus below 0 could turn a sign"
        share = float((bonus_N > 0).sum()) / max(int(batch.counts.sum()), 1)
        return Out(
            credit_N + bonus_N, {"qglas/bonus_mean": float(bonus_N.sum()) / batch.n_rows, "qglas/paid_frac": share}
        )
