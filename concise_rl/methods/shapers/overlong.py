"""DAPO's soft overlong punishment: a ramp before the token limit instead of a cliff at it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where


@dataclass
class Overlong(Shaper):
    """Adds a penalty that grows from 0 to 1 over the last `cache` tokens before `max_length`.

        reward -= clip((l - (max_length - cache)) / cache, 0, 1)

    It falls on right and wrong answers alike. An answer of exactly max_length - cache tokens is free, one of
    max_length or more loses 1. Where sampling stops at max_length the penalty is 1 exactly at the limit. Rows without
    a verdict keep the reward they came with.

    Source: arXiv 2503.14476 section 3.4, equation 13 (max_length 20480, cache 4096).

    Attributes:
        max_length: tokens at which the whole penalty is reached; None takes each row's own limit.
        cache: tokens of the ramp; None for a fifth of max_length, the paper's ratio.

    Raises:
        UserError: max_length is not positive, or the ramp is empty or longer than max_length.
    """

    max_length: int | None = None
    cache: int | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"Overlong.max_length={self.max_length}: must be a positive number of tokens")
        if self.cache is not None and not 1 <= self.cache <= (self.max_length or math.inf):
            raise UserError(
                f"Overlong.cache={self.cache}: the ramp has 1 to max_length={self.max_length} tokens; "
                "leave it out for a fifth of max_length"
            )

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) less the penalty."""
        max_length_N = batch.limits if self.max_length is None else torch.full_like(batch.limits, self.max_length)
        cache_N = (max_length_N // 5).clamp(min=1) if self.cache is None else torch.full_like(max_length_N, self.cache)
        over_N = (batch.lengths - (max_length_N - cache_N)).double() / cache_N
        penalty_N = over_N.clamp(0.0, 1.0) * batch.counts
        metrics = {
            "overlong/penalty_mean": mean_where(penalty_N, batch.counts),
            "overlong/penalised_frac": mean_where(penalty_N > 0, batch.counts),
        }
        return Out(value - penalty_N, metrics)
