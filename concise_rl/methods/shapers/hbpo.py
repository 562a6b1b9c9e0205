"""HBPO's reward: flat within the budget that a row announced, falling beyond it; small budgets earn more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where, right
from concise_rl.options import Variant, choose


@dataclass
class Hbpo(Shaper):
    """Right rows, with L sampled tokens, b the row value `budget`, M the row's limit; replaces the reward:

        f1 = beta cos(pi L / 2 M) - alpha |L - b|        f2 = beta cos(pi b / 2 M)
        paper:  L <= b: f2, else f1                      code:  min(f1, f2)
        wrong: 0

    Within a budget the paper's reward is flat; that of the released code rises towards a small budget. Far beyond its
    budget a right row may get less than 0.

    Source: HBPO, arXiv 2507.15844 equations 1 to 3; zju-real/hbpo, which rounds cos to two digits only where no budget
    was announced.

    Attributes:
        beta: reward of an answer of no tokens.
        alpha: reward that a token of distance costs; None: 1 / M.
        max_length: M in tokens; None takes each row's own limit.
        variant: `paper` or `code`.

    Raises:
        UserError: beta or max_length is not positive, or alpha is negative.
    """

    beta: float = 4.0
    alpha: float | None = None
    max_length: int | None = None
    variant: Variant = Variant.paper

    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.variant = choose("Hbpo.variant", Variant, self.variant)
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise UserError(f"Hbpo.beta={self.beta}: must be positive, 4 is the paper's")
        if self.alpha is not None and not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise UserError(f"Hbpo.alpha={self.alpha}: must be 0 or more; null is 1 / limit")
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"Hbpo.max_length={self.max_length}: must be 1 or more tokens; null is the row's limit")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"parts.budget"})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        lengths, budgets = batch.lengths.double(), batch.part("budget")
        most = longest(batch, self.max_length)
        alpha = 1 / most if self.alpha is None else self.alpha
        beyond = self.beta * torch.cos(math.pi * lengths / (2 * most)) - alpha * (lengths - budgets).abs()
        within = budget_reward(budgets, most, self.beta)
        worth = torch.where(lengths <= budgets, within, beyond)
        worth = worth if self.variant is Variant.paper else torch.minimum(beyond, within)
        shaped = torch.where(batch.counts, torch.where(right(batch), worth, 0.0), value)
        return Out(shaped, {"hbpo/over_budget_frac": mean_where(lengths > budgets, batch.counts)})


def longest(batch: RolloutBatch, max_length: int | None) -> Tensor:
    """M of each row, (N,) float64, at least 1."""
    return (batch.limits if max_length is None else torch.full_like(batch.limits, max_length)).double().clamp(min=1)


def budget_reward(budgets: Tensor, most: Tensor, beta: float) -> Tensor:
    """f2: what a right row within its budget earns, (N,)."""
    return beta * torch.cos(math.pi * budgets / (2 * most))
