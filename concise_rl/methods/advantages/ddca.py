"""DDCA: length credit is earned among the right answers alone, and weighs by how many there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import (
    group_count,
    group_mean,
    group_std,
    pass_rate,
    right,
    z_score,
    zero_where_out,
)
from concise_rl.options import choose


class Kind(str, Enum):
    """How both parts are centred: GRPO's way, or leave-one-out."""

    grpo = "grpo"
    rloo = "rloo"


@dataclass
class Ddca(Advantage):
    """Credit for being right plus credit for being short among the right, decoupled.

    Source: arXiv 2602.02099; alphadl/DDCA.

        A = A_acc + beta * rho * A_len,  rho = share of right rows, or 1 where not `dynamic`
        s = sigmoid((L - mean_C(L)) / (pd_C(L) + 1e-8)) over the right rows C, population deviation

        grpo   A_acc = (c - mean(c)) / (pd(c) + 1e-8)      A_len = -(s - mean_C(s)) on C, else 0
        rloo   A_acc = c - mean of the others              A_len = -(s - mean of the other right ones) on C, else 0

    It reads the verdict c, not the reward handed in. In a group that is all right, or wrong, A_acc is 0 and the length
    part alone is left; a single right row has A_len = 0.

    Attributes:
        kind: `grpo` or `rloo`.
        beta: weight of the length part.
        dynamic: weigh it by rho, so that hard prompts are pressed less.

    Raises:
        UserError: unknown kind, or beta below 0.
    """

    kind: Kind = Kind.grpo
    beta: float = 0.2
    dynamic: bool = True

    def __post_init__(self) -> None:
        self.kind = choose("Ddca.kind", Kind, self.kind)
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise UserError(f"Ddca.beta={self.beta}: must be 0 or more, 0.2 is the paper's")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,); `value` is not read."""
        correct_N, right_N = batch.correct.to(torch.float64), right(batch)
        score_N = torch.sigmoid(z_score(batch, batch.lengths, right_N, epsilon=1e-8, population=True))
        accuracy_N = self._centred(batch, correct_N, None)
        if self.kind is Kind.grpo:
            accuracy_N = accuracy_N / (group_std(batch, correct_N, population=True) + 1e-8)
        length_N = torch.where(right_N, -self._centred(batch, score_N, right_N), 0.0)
        rho_N = pass_rate(batch) if self.dynamic else torch.ones_like(correct_N)
        return Out(zero_where_out(batch, accuracy_N + self.beta * rho_N * length_N))

    def _centred(self, batch: RolloutBatch, values_N: Tensor, mask_N: Tensor | None) -> Tensor:
        """Values against the mean of their rows, or of the others among them; 0 for a row alone."""
        centred_N = values_N - group_mean(batch, values_N, mask_N)
        if self.kind is Kind.grpo:
            return centred_N
        n_N = group_count(batch, mask_N).to(torch.float64)
        return centred_N * n_N / (n_N - 1).clamp(min=1.0)
