"""Leaves out the groups whose rows all have one task reward."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Filter


@dataclass
class DropZeroVariance(Filter):
    """A group that is all right or all wrong teaches nothing; only rows that count have a say.

    Source: arXiv 2503.14476 section 3.2 (without drawing other prompts), arXiv 2510.13786. `zero_variance=drop` puts it
    before every method; `refill` draws other prompts first.
    """

    def keep(self, batch: RolloutBatch) -> Tensor:
        """(N,) bool, False in groups without variance."""
        return ~batch.per_row(batch.without_variance(batch.task_reward))
