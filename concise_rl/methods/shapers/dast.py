"""DAST: a token budget that follows how hard the prompt is for the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_mean, mean_where, pass_rate

RIGHT_LEAST, WRONG_MOST = 0.1, -0.1
"""A right answer gets at least 0.1, a wrong one at most -0.1, whatever their lengths."""


@dataclass
class Dast(Shaper):
    """Replaces the reward by one around a budget between the mean right length and the most that is allowed.

    With L the length of a row in sampled tokens, p the share of right rows of its group, and mean_C the mean length of
    the right ones:

        budget = p * mean_C + (1 - p) * max_length           lam = (L - budget) / budget
        right: max(0.5 - 0.5 lam, 0.1)                        wrong: min(0.9 lam - 0.1, -0.1)

    So an easy prompt has a budget near the length of its right answers, a hard one nearly all that is allowed. As
    printed, a wrong answer costs less the longer it is, up to the budget. Where nothing is right the budget is
    max_length; where it is 0 the reward stays as it came, and so does that of rows that do not count.

    Source: arXiv 2503.04472 (offline pairs for SimPO there; here the calibrated reward itself). No code was released.

    Attributes:
        max_length: tokens; None takes each row's own limit.

    Raises:
        UserError: max_length is below 1.
    """

    max_length: int | None = None

    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"Dast.max_length={self.max_length}: must be 1 token or more, or null for the row's limit")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) from verdicts and lengths."""
        length_N = batch.lengths.double()
        most_N = batch.limits.double() if self.max_length is None else torch.full_like(length_N, self.max_length)
        p_N = pass_rate(batch)
        budget_N = p_N * group_mean(batch, length_N, batch.correct) + (1 - p_N) * most_N
        has_budget_N = budget_N > 0
        lam_N = (length_N - budget_N) / torch.where(has_budget_N, budget_N, 1.0)
        right_N, wrong_N = (0.5 - 0.5 * lam_N).clamp(min=RIGHT_LEAST), (0.9 * lam_N - 0.1).clamp(max=WRONG_MOST)
        reward_N = torch.where(batch.counts & has_budget_N, torch.where(batch.correct, right_N, wrong_N), value)
        return Out(reward_N, {"dast/budget_mean": mean_where(budget_N, batch.counts)})
