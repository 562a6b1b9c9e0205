"""prime-rl's linear penalty: what a row cost in output tokens, input tokens and turns, against its group's dearest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import group_max, group_mean, zero_where_out


@dataclass
class VectorCost(Advantage):
    """Reward less a share of the group's mean reward for each cost, against the group's mean.

    Source: PrimeIntellect-ai/prime-rl, the `linear` length penalty of its GRPO.

        s_i = r_i - mean(r) * (w_out * L_i / max L + w_in * I_i / max I + w_turns * T_i / max T)
        A_i = s_i - mean(s)

    Maxima are those of the group, at least 1. L are sampled tokens, I input tokens, T turns. I and T come from
    `parts["input_tokens"]` and `parts["turns"]`, else from the batch's costs `context_tokens` and `turns`. Where the
    batch has neither, the run is of one turn: I is the prompt, the same for the whole group, and T is 1; both shares
    are then constant and the centring takes them out. Prompts that nobody solves pay nothing: mean(r) is 0 there.

    Attributes:
        output_weight, input_weight, turns_weight: w_out, w_in, w_turns.
        clamp: take a negative mean(r) as 0; without it, as in the released code, a group with one is paid for cost.

    Raises:
        UserError: a weight below 0.
    """

    output_weight: float = 0.25
    input_weight: float = 0.1
    turns_weight: float = 0.1
    clamp: bool = True

    def __post_init__(self) -> None:
        for name in ("output_weight", "input_weight", "turns_weight"):
            weight = getattr(self, name)
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"VectorCost.{name}={weight}: must be 0 or more, a cost that pays is a mistake")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,)."""
        price_N = (
            self.output_weight * _share(batch, batch.lengths.to(torch.float64))
            + self.input_weight * _share(batch, _cost(batch, "input_tokens", "context_tokens"))
            + self.turns_weight * _share(batch, _cost(batch, "turns", "turns"))
        )
        mean_N = group_mean(batch, value)
        priced_N = value - (mean_N.clamp(min=0.0) if self.clamp else mean_N) * price_N
        credit_N = zero_where_out(batch, priced_N - group_mean(batch, priced_N))
        return Out(credit_N, {"vector_cost/price_mean": float(zero_where_out(batch, price_N).sum()) / batch.n_rows})


def _cost(batch: RolloutBatch, part: str, cost: str) -> Tensor:
    """The row value of a part, else of a cost, else 1 for every row."""
    found = batch.parts.get(part)
    found = batch.costs.get(cost) if found is None else found
    return torch.ones(batch.n_rows, dtype=torch.float64) if found is None else found


def _share(batch: RolloutBatch, cost_N: Tensor) -> Tensor:
    """Of the group's largest, which is taken as at least 1."""
    return cost_N / group_max(batch, cost_N).clamp(min=1.0)
