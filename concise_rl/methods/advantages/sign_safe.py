"""Credit whose sign shaping cannot flip: right answers are never pushed down, wrong ones never up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import mean_where


@dataclass
class SignSafe(Advantage):
    """The credit of the links before, with the wrong sign set to 0; it stands last: `[group_relative, sign_safe]`.

        A = max(credit, 0) on right rows, min(credit, 0) on wrong ones

    A length term can make a right but long completion worse than its group's mean; then its tokens are made less
    likely although it answered well (`wiped_correct_frac` counts such rows). Where the sign may not flip, length only
    decides how much a right answer gains. The mean credit of a group is then no longer 0.
    """

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit of the shape that came, (N,) or (N, T); logs the share of rows whose credit was taken."""
        correct = batch.correct if value.ndim == 1 else batch.correct[:, None]
        safe = torch.where(correct, value.clamp(min=0), value.clamp(max=0))
        changed = safe != value if value.ndim == 1 else (safe != value).any(dim=1)
        return Out(safe, {"sign_safe/changed_frac": mean_where(changed, batch.counts)})
