"""ShorterBetter: come as close as you can to the shortest right answer of the group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_mean, group_min, mean_where, right
from concise_rl.options import choose


class WhenNone(str, Enum):
    """What a group without a right answer is compared with: its mean length, or nothing."""

    mean = "mean"
    zero = "zero"


@dataclass
class ShorterBetter(Shaper):
    """Replaces the reward by correctness minus the distance to the sampled optimal length (SOL).

        reward = alpha * correct - beta * |L - SOL|
        SOL = shortest right length of the group; where none is right, the mean length of the group

    Wrong rows pay for distance too, also for being shorter than SOL. A group of wrong answers has variance by design:
    its row of average length wins. `when_none=zero` drops the length term there.

    Source: arXiv 2504.21370, JingyangYi/ShorterBetter at 6399366.

    Attributes:
        alpha: reward of a right answer.
        beta: price of a token of distance.
        when_none: `mean` or `zero`, for groups without a right answer.

    Raises:
        UserError: a field is out of range.
    """

    alpha: float = 2.0
    beta: float = 0.001
    when_none: WhenNone = WhenNone.mean

    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.when_none = choose("ShorterBetter.when_none", WhenNone, self.when_none)
        for name, default in (("alpha", 2), ("beta", 0.001)):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"ShorterBetter.{name}={getattr(self, name)}: must be 0 or more, {default} is usual")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) from verdicts and lengths."""
        length_N = batch.lengths.double()
        shortest_N = group_min(batch, length_N, right(batch))
        solved_N = shortest_N.isfinite()
        fallback_N = group_mean(batch, length_N) if self.when_none is WhenNone.mean else length_N
        optimal_N = torch.where(solved_N, shortest_N, fallback_N)
        shaped_N = self.alpha * batch.correct - self.beta * (length_N - optimal_N).abs()
        metrics = {
            "shorter_better/optimal_mean": mean_where(optimal_N, solved_N & batch.counts),
            "shorter_better/unsolved_frac": mean_where(~solved_N, batch.counts),
        }
        return Out(torch.where(batch.counts, shaped_N, value), metrics)
