"""DOT's cut: in groups that are all right, what is far longer than the rest is cut down to a length of the group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Cut
from concise_rl.methods.statistics import group_count, group_mean, group_std, right

SMALLEST_SHARE = 16
"""Tokens that a margin given as a share comes to at least."""


@dataclass
class OutlierCut(Cut):
    """Dynamic outlier truncation: in a group that is all right, a row far longer than the others is cut.

        T = int(mean L + alpha * sd L)        of a group whose rows that count are all right, sample deviation
        keep T of a row with L - T >= margin, all of the others

    A cut row is judged again, on what is left of it, as truncated: mostly it is wrong then, and the group, which had
    nothing to teach, teaches not to run on.

    With G rows no length lies more than (G - 1) / sqrt(G) deviations above the mean: at alpha 3 a group needs 11 rows.

    Source: DOT, arXiv 2601.03969, and its official code.

    Attributes:
        alpha: deviations above the mean.
        margin: tokens above T from which on a row is cut; below 1 a share of the row's length, at least 16 tokens.

    Raises:
        UserError: alpha or margin is negative, or the groups are too small for alpha.
    """

    alpha: float = 3.0
    margin: float = 32.0

    def __post_init__(self) -> None:
        for name in ("alpha", "margin"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"OutlierCut.{name}={getattr(self, name)}: must be 0 or more")

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """(N,) int64, from 1 to the row's length."""
        lengths = batch.lengths.double()
        threshold = torch.floor(group_mean(batch, lengths) + self.alpha * group_std(batch, lengths)).clamp(min=1)
        all_right = (group_count(batch, right(batch)) == group_count(batch)) & batch.counts
        outlier = all_right & (lengths - threshold >= self._margin(lengths))
        return torch.where(outlier, threshold, lengths).long()

    def check(self, group_size: int) -> None:
        """Refuse groups in which no row can be an outlier.

        Raises:
            UserError: names alpha, the group size and the smallest one that would do.
        """
        if group_size - 1 <= self.alpha * math.sqrt(group_size):
            least = next(n for n in range(2, 10**6) if n - 1 > self.alpha * math.sqrt(n))
            raise UserError(
                f"OutlierCut.alpha={self.alpha}: of trainer.num_generations={group_size} lengths none can be so many "
                f"deviations above the mean: sample {least} or more, or lower alpha"
            )

    def _margin(self, lengths: Tensor) -> Tensor:
        if self.margin >= 1:
            return torch.full_like(lengths, self.margin)
        return torch.floor(lengths * self.margin).clamp(min=SMALLEST_SHARE)
