"""GRPO-LEAD's reward: among right answers the short ones earn more, exponentially in their z-score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where, right, z_score
from concise_rl.options import Variant, choose

FORMAT_ERROR = "format_error"
"""The part that is 1 where an answer has a bad format; a verifier may lack it."""

WRONG, BAD_FORMAT = -1.0, 0.0
GATE_ROWS = 3
"""The released gate looks at so many of the group's shortest rows."""


@dataclass
class Lead(Shaper):
    """Replaces the reward by exp(-alpha * z) where right, -1 where wrong, 0 where the format is bad.

        z = (L - mean_C(L)) / (std_C(L) + 1e-6)      C: the group's right rows of good format; n - 1

    A lone right answer, and right answers of one length, get 1. A bad format (`parts["format_error"]` not 0; without
    that part there is none) beats a wrong answer, as published.

    Source: arXiv 2504.09696, aeroplanepaper/GRPO-LEAD at 9344bef. `variant=code` has a gate that the paper lacks: where
    the three shortest rows of the group, right or wrong, have a mean length up to `gate`, right answers get 1
    whatever their length. Fewer than three rows have no gate.

    Attributes:
        alpha: steepness.
        gate: tokens, of `variant=code`.
        variant: `paper` or `code`.

    Raises:
        UserError: a field is out of range.
    """

    alpha: float = 0.05
    gate: int = 4000
    variant: Variant = Variant.paper

    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.variant = choose("Lead.variant", Variant, self.variant)
        if not 0 <= self.alpha < math.inf:
            raise UserError(f"Lead.alpha={self.alpha}: must be 0 or more, 0.05 is the paper's")
        if self.gate < 0:
            raise UserError(f"Lead.gate={self.gate}: must be 0 tokens or more, 4000 is the released code's")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) from verdicts, formats and lengths."""
        bad_N = batch.parts.get(FORMAT_ERROR, torch.zeros_like(value)) != 0
        right_N = right(batch) & ~bad_N
        z_N = z_score(batch, batch.lengths, right_N, epsilon=1e-6)
        gated_N = self._gated(batch)
        earned_N = torch.where(gated_N, 1.0, torch.exp(-self.alpha * torch.where(right_N, z_N, 0.0)))
        shaped_N = torch.where(bad_N, BAD_FORMAT, torch.where(right_N, earned_N, WRONG))
        metrics = {
            "lead/gated_frac": mean_where(gated_N, batch.counts),
            "lead/bad_format_frac": mean_where(bad_N, batch.counts),
        }
        return Out(torch.where(batch.counts, shaped_N, value), metrics)

    def _gated(self, batch: RolloutBatch) -> Tensor:
        """The rows of groups whose shortest rows are short enough, (N,) bool."""
        if self.variant is Variant.paper or batch.group_size < GATE_ROWS:
            return torch.zeros_like(batch.counts)
        counted_PG = torch.where(batch.by_group(batch.counts), batch.by_group(batch.lengths).double(), torch.inf)
        shortest_P = counted_PG.sort(dim=1).values[:, :GATE_ROWS].mean(dim=1)  # inf where fewer rows count
        return batch.per_row(shortest_P <= self.gate)
