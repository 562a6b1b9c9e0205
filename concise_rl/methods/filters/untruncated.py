"""Leaves out the rows that their limit cut off."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Filter


@dataclass
class Untruncated(Filter):
    """Rows that reached their limit without an end teach nothing: DAPO's overlong filtering.

    Source: arXiv 2503.14476 section 3.4. `truncated=mask` puts it before every method.
    """

    def keep(self, batch: RolloutBatch) -> Tensor:
        """(N,) bool, False where the row was cut off."""
        return ~batch.truncated
