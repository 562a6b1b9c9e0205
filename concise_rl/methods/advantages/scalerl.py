"""ScaleRL's credit: reward against its group, over the spread of all such differences of the step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import group_mean, zero_where_out


@dataclass
class Scalerl(Advantage):
    """Reward minus its group's mean, over the population deviation of all centred rewards of the step.

    Source: arXiv 2510.13786 section 3; no training code is published.

        A_i = (r_i - mean_group(r)) / sqrt(mean over the step of (r_j - mean_group(r))^2)

    No epsilon; 0 where nothing varies. Only rows that count take part, so with the filter `zero_variance` the groups
    without variance do not shrink the deviation. Rewards of 0 and 1 give what the paper's -1 and +1 give: the division
    takes the scale out.
    """

    @property
    def across_groups(self) -> bool:
        """The deviation is that of the step."""
        return True

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,)."""
        centred_N = zero_where_out(batch, value - group_mean(batch, value))
        n = int(batch.counts.sum())
        deviation = (centred_N.square().sum() / max(n, 1)).sqrt()
        return Out(centred_N / deviation if float(deviation) > 0 else torch.zeros_like(centred_N))
