"""Training Language Models to Reason Efficiently: a right answer pays a tax that grows with its length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where, right, z_score


@dataclass
class Arora(Shaper):
    """Takes from a right answer up to `alpha` of its reward, by its length among the group's right answers.

    With L in sampled tokens, C the group's right rows that ended by themselves, and sg the logistic function:

        z = (L - mean_C(L)) / (std_C(L) + 1e-7)      population standard deviation
        reward *= 1 - alpha * sg(z)                  rows of C
        reward = 0                                   right rows that were cut off; they are not in C
        reward as it came                            wrong rows

    A lone right answer, and right answers of one length, have z = 0 and pay alpha / 2 each.

    Source: arXiv 2502.04463, Zanette-Labs/efficient-reasoning at e3611e4, where it meets RLOO. The released code counts
    tokens of the re-tokenised text and keys its statistics by the question's text; here they are sampled tokens, and a
    prompt that stands twice makes two groups.

    Attributes:
        alpha: most of the reward that length can take, in 0..1; the paper sweeps 0.05 to 0.4.

    Raises:
        UserError: alpha is out of range.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(f"Arora.alpha={self.alpha}: a share of the reward is in 0..1; the paper sweeps 0.05 to 0.4")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) after the tax."""
        ended_N = right(batch) & ~batch.truncated
        z_N = z_score(batch, batch.lengths, ended_N, epsilon=1e-7, population=True)
        tax_N = torch.where(ended_N, self.alpha * torch.sigmoid(z_N), 0.0)
        cut_N = right(batch) & batch.truncated
        shaped_N = torch.where(cut_N, 0.0, value * (1 - tax_N))
        metrics = {
            "arora/tax_mean": mean_where(tax_N, ended_N),
            "arora/cut_right_frac": mean_where(cut_N, right(batch)),
        }
        return Out(shaped_N, metrics)
