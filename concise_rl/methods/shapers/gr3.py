"""GR3: a reward is divided by one plus a share of the answer's relative length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_count, group_max, group_mean, mean_where


@dataclass
class Gr3(Shaper):
    """Rescales the reward by relative length, so that nothing is gained by being short and wrong.

        reward /= 1 + alpha * L / mean(L)      mean over all rows of the group, right and wrong

    A reward of 0 stays 0. Where all lengths are 0, rewards stay as they came. A negative reward would gain from
    length, so it is refused.

    Source: arXiv 2603.10535; no code was released. Its alpha is the largest that keeps `gr3/calibration_ok` near 1 (at
    least 0.999): the share of groups in which a row of average length with the group's best reward, max(reward) / (1 +
    alpha), is not below the mean of the shaped rewards. The paper's own default is not confirmed; 0.3 is QGLAS's.

    Attributes:
        alpha: weight of relative length.

    Raises:
        UserError: alpha is negative, or a reward handed in is.
    """

    alpha: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise UserError(f"Gr3.alpha={self.alpha}: must be 0 or more; below 0 it would pay for length")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,), rescaled."""
        _refuse_negative(batch, value)
        mean_N = group_mean(batch, batch.lengths)
        relative_N = torch.where(mean_N > 0, batch.lengths / mean_N.clamp(min=1e-300), 0.0)
        shaped_N = torch.where(batch.counts, value / (1 + self.alpha * relative_N), value)
        # A group of one length sits on the bound itself, give or take a rounding.
        best_N = group_max(batch, value) / (1 + self.alpha)
        calibrated_N = best_N + 1e-12 >= group_mean(batch, shaped_N)
        once_N = torch.arange(batch.n_rows) % batch.group_size == 0
        return Out(shaped_N, {"gr3/calibration_ok": mean_where(calibrated_N, once_N & (group_count(batch) > 0))})


def _refuse_negative(batch: RolloutBatch, value: Tensor) -> None:
    negative_N = (value < 0) & batch.counts
    if bool(negative_N.any()):
        row = int(negative_N.nonzero()[0, 0])
        raise UserError(
            f"Gr3: reward[{row}]={float(value[row])} of prompt {batch.prompt_keys[row // batch.group_size]} is "
            "negative and would gain from length: use a verifier or shapers whose rewards are 0 or more"
        )
