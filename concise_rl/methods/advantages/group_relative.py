"""Credit against the group's mean: GRPO, its batch-scaled form, and Dr.GRPO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import group_mean, group_std, zero_where_out
from concise_rl.options import choose


class Scale(str, Enum):
    """What the centred reward is divided by."""

    group = "group"
    batch = "batch"
    none = "none"


@dataclass
class GroupRelative(Advantage):
    """Reward minus the mean of its group, over a standard deviation.

        A_i = (r_i - mean_group(r)) / (s + epsilon)

    `s` is the sample standard deviation (n - 1) of the group (`scale="group"`, GRPO, arXiv 2402.03300 section 4.1), of
    all rewards of the step (`"batch"`), or nothing is divided at all (`"none"`, Dr.GRPO, arXiv 2503.20783 section 3.2,
    which holds that dividing favours prompts whose rewards hardly differ). The arithmetic is that of TRL's
    `scale_rewards`. With `population` the deviation is that of a population (n), as in GFPO (arXiv 2508.09726). Rows
    that do not count are in no mean and no deviation and get 0; a group of one gets 0.

    Dr.GRPO's other half, dividing the loss by the token budget instead of by the tokens sampled, is the loss
    `dr_grpo`, not the advantage's.

    Attributes:
        scale: `group`, `batch` or `none`.
        epsilon: added to the deviation, in units of reward; unused with `none`. At 0 a group without deviation gets 0.
        population: the deviation is that of a population (n), not of a sample (n - 1).

    Raises:
        UserError: unknown scale, or a negative epsilon.
    """

    scale: Scale = Scale.group
    epsilon: float = 1e-4
    population: bool = False

    def __post_init__(self) -> None:
        self.scale = choose("GroupRelative.scale", Scale, self.scale)
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise UserError(f"GroupRelative.epsilon={self.epsilon}: must be 0 or more, 1e-4 is usual")

    @property
    def across_groups(self) -> bool:
        """With `scale=batch` the deviation is that of the step."""
        return self.scale is Scale.batch

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,)."""
        centred_N = value - group_mean(batch, value)
        if self.scale is not Scale.none:
            scale_N = self._deviation(batch, value) + self.epsilon
            centred_N = torch.where(scale_N > 0, centred_N / scale_N, 0.0)
        return Out(zero_where_out(batch, centred_N))

    def _deviation(self, batch: RolloutBatch, value: Tensor) -> Tensor:
        if self.scale is Scale.group:
            return group_std(batch, value, population=self.population)
        counted = value[batch.counts]
        correction = 0 if self.population else 1
        return counted.std(correction=correction) if counted.numel() > 1 else torch.zeros((), dtype=value.dtype)
