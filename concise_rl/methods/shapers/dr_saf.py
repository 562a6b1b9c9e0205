"""DR. SAF: shorter where the model is sure, longer where it fails, and a reward for knowing which is which."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_count, mean_where, right
from concise_rl.options import Variant, choose

LABEL = "label"
"""The part that holds what a row called the prompt: 1 easy, -1 hard, 0 nothing."""

LENGTH, LABELLED, MATCHED = 5.0, 1.0, 2.0
"""Points for a length on the wanted side, for any label, and for the right one."""


@dataclass
class DrSaf(Shaper):
    """Adds points for length where the group is very easy or hard, and for the row's own label of the difficulty.

    With p the share of right rows of the group and `median` the median length of its right rows (of all rows that
    count, if none is right), in sampled tokens:

        p >= 0.95 (easy): 5 points for a right row with L <= median
        p <  0.3  (hard): 5 points for a **wrong** row with L >= median
        label: 1 point for any, 2 more if it is the wanted one (easy where p >= 0.95, else hard)
        reward += weight * points

    Boundaries are compared in whole numbers. `variant="code"` compares right / (n + 0.001) with them, which moves a
    group that lies on a boundary below it: 19 of 20 is not easy, 3 of 10 is hard.

    It pays wrong answers of hard groups for length, so a group without a right answer has variance.

    Source: arXiv 2508.11582, sfasfaffa/DR_SAF at 83232c5.

    Attributes:
        weight: reward a point.
        variant: `paper` or `code`.

    Raises:
        UserError: weight is negative or not finite.
    """

    weight: float = 0.01
    variant: Variant = Variant.paper

    def __post_init__(self) -> None:
        self.variant = choose("DrSaf.variant", Variant, self.variant)
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"DrSaf.weight={self.weight}: must be 0 or more, 0.01 is the paper's")

    @property
    def needs(self) -> frozenset[str]:
        """The row's label."""
        return frozenset({PART_PREFIX + LABEL})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) plus points."""
        easy_N, hard_N = self._difficulty(batch)
        median_N = _median_length(batch)
        short_N = easy_N & batch.correct & (batch.lengths <= median_N)
        long_N = hard_N & ~batch.correct & (batch.lengths >= median_N)
        label_N = batch.part(LABEL)
        matched_N = label_N == torch.where(easy_N, 1.0, -1.0)
        points_N = (
            LENGTH * (short_N | long_N).double() + LABELLED * (label_N != 0).double() + MATCHED * matched_N.double()
        )
        metrics = {
            "dr_saf/easy_frac": mean_where(easy_N, batch.counts),
            "dr_saf/hard_frac": mean_where(hard_N, batch.counts),
            "dr_saf/labelled_frac": mean_where(label_N != 0, batch.counts),
            "dr_saf/matched_frac": mean_where(matched_N, batch.counts),
        }
        return Out(torch.where(batch.counts, value + self.weight * points_N, value), metrics)

    def _difficulty(self, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """Rows of easy and of hard groups, (N,) bool each."""
        right_N, n_N = group_count(batch, batch.correct), group_count(batch)
        if self.variant is Variant.code:
            share_N = right_N / (n_N + 0.001)
            return share_N >= 0.95, share_N < 0.3
        return (20 * right_N >= 19 * n_N) & (n_N > 0), 10 * right_N < 3 * n_N


def _median_length(batch: RolloutBatch) -> Tensor:
    """Median length of the right rows of each group, of all that count where none is right, repeated, (N,)."""
    right_PG, counts_PG = batch.by_group(right(batch)), batch.by_group(batch.counts)
    of_PG = torch.where(right_PG.any(dim=1, keepdim=True), right_PG, counts_PG)
    sorted_PG = torch.where(of_PG, batch.by_group(batch.lengths).double(), math.inf).sort(dim=1).values
    last_P1 = (of_PG.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    middle_P2 = sorted_PG.gather(1, torch.cat([last_P1 // 2, (last_P1 + 1) // 2], dim=1))
    return batch.per_row(middle_P2.mean(dim=1))
