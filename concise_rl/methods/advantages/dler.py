"""DLER: truncated answers earn a tenth, credit is normalised over the step, and right answers get a little more."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import group_count, group_mean, standardised, zero_where_out
from concise_rl.options import Variant, choose

RIGHT = 1 - 1e-5
"""A reward from which on a row counts as right."""


@dataclass
class Dler(Advantage):
    """Truncation as the only length penalty, with a step-wide normalisation.

    Source: arXiv 2510.15110; NVlabs/DLER @ea7d4f7.

        s_i = r_i * truncated_scale where the row was cut off, else r_i
        a_i = s_i - mean_group(s)                         without the mean in a group of one
        A_i = (a_i - m) / sqrt(v + 1e-8) + boost * 1[r_i >= 1 - 1e-5]

    m and v (with n - 1) are those of all rows of the step (`variant=paper`) or of all tokens, each row weighted by its
    length (`variant=code`). Where nothing varies, or with fewer than two rows (tokens), the normalised part is 0. The
    boost looks at the reward before it was scaled, so a right answer that was cut off is boosted too unless
    `boost_truncated` is off. An all-right group has credit `boost`, so it is not idle.

    Attributes:
        truncated_scale: what is left of the reward of a row that was cut off, 0.1 in the released script.
        boost: credit added to right rows after normalisation, 0.1 in the released script.
        boost_truncated: right rows that were cut off get it as well.
        variant: `paper` or `code`.

    Raises:
        UserError: unknown variant, or a number out of its range.
    """

    truncated_scale: float = 0.1
    boost: float = 0.1
    boost_truncated: bool = True
    variant: Variant = Variant.paper

    def __post_init__(self) -> None:
        self.variant = choose("Dler.variant", Variant, self.variant)
        if not 0 <= self.truncated_scale <= 1:
            raise UserError(f"Dler.truncated_scale={self.truncated_scale}: the share of a reward is from 0 to 1")
        if not (math.isfinite(self.boost) and self.boost >= 0):
            raise UserError(f"Dler.boost={self.boost}: must be 0 or more, 0.1 is the released script's")

    @property
    def across_groups(self) -> bool:
        """Mean and variance are those of the step."""
        return True

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the reward (N,)."""
        scaled_N = torch.where(batch.truncated, value * self.truncated_scale, value)
        alone_N = group_count(batch) == 1
        centred_N = scaled_N - torch.where(alone_N, 0.0, group_mean(batch, scaled_N))
        weights_N = batch.lengths if self.variant is Variant.code else torch.ones_like(batch.lengths)
        credit_N = standardised(centred_N, torch.where(batch.counts, weights_N, 0), epsilon=1e-8, inside=True)
        boosted_N = batch.counts & (value >= RIGHT) & (~batch.truncated | self.boost_truncated)
        credit_N = zero_where_out(batch, credit_N + self.boost * boosted_N.to(torch.float64))
        share = float(boosted_N.sum()) / max(int(batch.counts.sum()), 1)
        return Out(credit_N, {"dler/boosted_frac": share})
