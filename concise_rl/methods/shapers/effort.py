"""Effort levels: prompts that ask for little effort pay for length, the others do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where

LOW_EFFORT = "low_effort"
"""The column that says which prompts ask for little effort; the edit `effort` writes it."""


@dataclass
class Effort(Shaper):
    """Adds a length reward to the rows of prompts that ask for little effort.

        l = min(1, w (1 - L / ub))        reward += reward * max(l, 0) + q * min(l, 0)

    L is in sampled tokens. Below ub tokens a row gains a share of what it earned, so a wrong one (0) gains nothing;
    above ub every row pays, right or wrong. Prompts whose column `low_effort` is false or null are left alone.

    Source: NVIDIA-NeMo/RL pull request 2770, for the Nemotron 3 models. That code finds the prompts by searching their
    text for the words that ask for little effort; a chat template that rewrites the turn switches it off unseen. Here
    the column decides.

    Attributes:
        w: weight of the length reward; 0 is off.
        q: weight of its negative side.
        ub: tokens at which it changes sign.

    Raises:
        UserError: a field is out of its range, or the column holds a text.
    """

    w: float = 0.1
    q: float = 1.0
    ub: float = 15000.0

    def __post_init__(self) -> None:
        for name in ("w", "q"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"Effort.{name}={getattr(self, name)}: must be 0 (off) or more; below 0 length is paid")
        if not (math.isfinite(self.ub) and self.ub > 0):
            raise UserError(f"Effort.ub={self.ub}: must be above 0 tokens, 15000 is the shipped value")

    @property
    def needs(self) -> frozenset[str]:
        """Which prompts ask for little effort."""
        return frozenset({COLUMN_PREFIX + LOW_EFFORT})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,), changed where the prompt asks for little effort."""
        low_P = torch.tensor([_flag(entry) for entry in batch.column(LOW_EFFORT)], dtype=torch.bool)
        low_N = batch.per_row(low_P) & batch.counts
        length_N = batch.lengths.double()
        l_N = (self.w * (1 - length_N / self.ub)).clamp(max=1)
        shaped_N = value + value * l_N.clamp(min=0) + self.q * l_N.clamp(max=0)
        metrics = {
            "effort/low_frac": mean_where(low_N, batch.counts),
            "effort/low_mean_tokens": mean_where(length_N, low_N),
            "effort/other_mean_tokens": mean_where(length_N, batch.counts & ~low_N),
        }
        return Out(torch.where(low_N, shaped_N, value), metrics)


def _flag(entry: Any) -> bool:
    if isinstance(entry, str):
        raise UserError(f"columns.{LOW_EFFORT} holds the text {entry!r}: give true, false or null")
    return entry is not None and bool(entry)
