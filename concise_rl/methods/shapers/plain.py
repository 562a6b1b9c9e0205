"""No shaping: the verdict is the reward."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Out, Shaper


@dataclass
class Plain(Shaper):
    """The reward as it came: what GRPO (arXiv 2402.03300) and Dr.GRPO (arXiv 2503.20783) train on."""

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """The same value, (N,)."""
        return Out(value)
