"""Credit whose sign shaping cannot flip: right answers are never pushed down, wrong ones never up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.advantages.base import Advantage
from concise_rl.methods.advantages.group_relative import GroupRelative


@dataclass
class SignSafe:
    """Another advantage, with credit of the wrong sign set to 0.

        A = max(inner, 0) on right rows, min(inner, 0) on wrong ones

    A length term can make a right but long completion worse than its group's mean; then its tokens are made less
    likely although it answered well (`wiped_correct_frac` counts such rows). Where the sign may not flip, length only
    decides how much a right answer gains. The mean credit of a group is then no longer 0.

    Attributes:
        inner: the advantage that is guarded.

    Raises:
        UserError: inner is no advantage.
    """

    inner: Any = field(default_factory=GroupRelative)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Advantage):
            raise UserError(f"SignSafe.inner={self.inner!r}: must be an advantage, such as GroupRelative()")

    @property
    def needs(self) -> frozenset[str]:
        return self.inner.needs

    def __call__(self, batch: RolloutBatch, reward: Tensor) -> Tensor:
        credit = self.inner(batch, reward)
        correct = batch.correct if credit.ndim == 1 else batch.correct[:, None]
        return torch.where(correct, credit.clamp(min=0), credit.clamp(max=0))
