"""Adaptive length penalty: tokens cost more on prompts that the policy already solves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where, pass_rate


@dataclass
class Alp(Shaper):
    """Subtracts a price a token that is proportional to the group's pass rate p.

        reward -= beta * max(p, 1/G) * L / max_length      floor
        reward -= beta * p * L / max_length                without

    G is the nominal group size. Right and wrong rows pay alike. With the floor a group of wrong answers is not without
    variance: its shortest row wins.

    Source: arXiv 2506.05256, from restatements: no code was released. The floor and beta are not confirmed;
    third-party code has beta 0.05 and 0.2, and no floor. A price a token is beta / max_length.

    Attributes:
        beta: price of an answer of `max_length` tokens where p = 1.
        max_length: tokens; None takes each row's own limit.
        floor: the price does not fall below that of one right answer in G.

    Raises:
        UserError: a field is out of range.
    """

    beta: float = 0.05
    max_length: int | None = None
    floor: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta < math.inf:
            raise UserError(f"Alp.beta={self.beta}: must be 0 or more; below 0 it would pay for length")
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"Alp.max_length={self.max_length}: must be 1 or more, or null for the row's own limit")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) minus the price of its tokens."""
        max_length_N = batch.limits if self.max_length is None else torch.full_like(batch.limits, self.max_length)
        rate_N = pass_rate(batch)
        if self.floor:
            rate_N = rate_N.clamp(min=1 / batch.group_size)
        price_N = self.beta * rate_N * batch.lengths.double() / max_length_N.clamp(min=1)
        price_N = torch.where(batch.counts, price_N, 0.0)
        return Out(value - price_N, {"alp/price_mean": mean_where(price_N, batch.counts)})
