"""No shaping: the verdict is the reward."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.shapers.base import Shaped, StatelessShaper


@dataclass
class Plain(StatelessShaper):
    """The reward as it came: what GRPO (arXiv 2402.03300) and Dr.GRPO (arXiv 2503.20783) train on."""

    def shape(self, batch: RolloutBatch, reward: Tensor) -> Shaped:
        """The same reward, (N,)."""
        return Shaped(reward)
