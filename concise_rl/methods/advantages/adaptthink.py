"""AdaptThink's credit: right as often as with thinking, and a bonus for not having thought."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import group_count, group_mean, mean_where, zero_where_out


@dataclass
class AdaptThink(Advantage):
    """A_i = r_i - p_ref + delta * no_think_i, with no further mean or deviation.

    p_ref is the accuracy of the reference model on the prompt, in the column `column` of the data (the paper samples 16
    answers of it beforehand). Without a column it is the mean reward of the group's rows that thought, in this step, so
    that not thinking must be as right as thinking is now; where none of them counts, the mean of all rows.

    Rows that do not count are in no mean and get 0.

    Source: AdaptThink, arXiv 2505.13417; THU-KEG/AdaptThink at 84cf948, whose advantage is this reward as it is.

    Attributes:
        delta: bonus for a row that did not think, in units of reward.
        column: of the data, with p_ref; None: the thinking rows of the group.

    Raises:
        UserError: delta is negative or not finite, or p_ref is no number from 0 to 1.
    """

    delta: float = 0.05
    column: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.delta) and self.delta >= 0):
            raise UserError(f"AdaptThink.delta={self.delta}: must be 0 or more")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"parts.no_think", *([COLUMN_PREFIX + self.column] if self.column else [])})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,)."""
        skipped = batch.part("no_think") > 0
        credit = value - self._reference(batch, value, ~skipped) + self.delta * skipped
        metrics = {
            "adaptthink/accuracy_no_think": mean_where(batch.correct, skipped & batch.counts),
            "adaptthink/accuracy_think": mean_where(batch.correct, ~skipped & batch.counts),
        }
        return Out(zero_where_out(batch, credit), metrics)

    def _reference(self, batch: RolloutBatch, value: Tensor, thinking: Tensor) -> Tensor:
        if self.column is None:
            some = group_count(batch, thinking) > 0
            return torch.where(some, group_mean(batch, value, thinking), group_mean(batch, value))
        given = batch.column(self.column)
        for key, p in zip(batch.prompt_keys, given, strict=True):
            if not isinstance(p, int | float) or not 0 <= p <= 1:
                raise UserError(f"column {self.column}={p!r} of prompt {key}: an accuracy is a number from 0 to 1")
        return batch.per_row(torch.tensor([float(p) for p in given], dtype=torch.float64))
