"""PEAR: right answers are worth less the more uncertain the thinking was, compared with the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where


@dataclass
class Pear(Shaper):
    """Replaces the reward of right answers by a score less a penalty on the entropy of their thinking phase.

    With H_think and H_answer the mean entropies of the phases, in nats under the policy that sampled:

        penalty = max(0, H_think - alpha * H_answer)
        reward  = score - penalty   if correct
                  format_reward     otherwise

    The tag `</think>` is in neither phase, an empty phase has entropy 0, and without the tag all is thinking, so that
    nothing offsets H_think. There is no floor: a right answer may score below a wrong one where the penalty exceeds
    score - format_reward. The paper's outer min(1, .) never binds, since score is at most 1 and the penalty at least 0.
    Rows without a verdict keep the reward they came with.

    Source: arXiv 2510.08026, equations 5 to 7; the authors' code could not be had.

    Attributes:
        alpha: share of the answer's entropy that is allowed to the thinking; any finite number (the paper tries -1..2).
        score: of a right answer without penalty, in (0, 1].
        format_reward: of a wrong answer, in [0, 1).

    Raises:
        UserError: a field is out of range.
    """

    alpha: float = 1.0
    score: float = 1.0
    format_reward: float = 0.0

    needs = frozenset({"think_entropy", "answer_entropy"})
    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.alpha):
            raise UserError(f"Pear.alpha={self.alpha}: must be finite, 1 is the paper's")
        if not 0 < self.score <= 1:
            raise UserError(f"Pear.score={self.score}: a right answer's score is above 0 and at most 1")
        if not 0 <= self.format_reward < 1:
            raise UserError(f"Pear.format_reward={self.format_reward}: a wrong answer's reward is in 0..1, 1 excluded")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) from the verdicts and the phase entropies."""
        if batch.think_entropy is None or batch.answer_entropy is None:
            raise UserError("Pear: the batch has no think_entropy and answer_entropy; fill what `needs` names")
        penalty_N = (batch.think_entropy - self.alpha * batch.answer_entropy).clamp(min=0.0)
        judged_N = torch.where(batch.correct, self.score - penalty_N, self.format_reward)
        metrics = {
            "pear/penalty_mean": mean_where(penalty_N, batch.correct & batch.counts),
            "pear/think_entropy_mean": mean_where(batch.think_entropy, batch.counts),
            "pear/answer_entropy_mean": mean_where(batch.answer_entropy, batch.counts),
        }
        return Out(torch.where(batch.counts, judged_N, value), metrics)
