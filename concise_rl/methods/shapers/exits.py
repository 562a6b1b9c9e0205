"""S-GRPO's reward: the earlier a right exit, the more it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import right


@dataclass
class Exits(Shaper):
    """The rows of a group are exits of one chain, from early to late, the whole answer last. Replaces the reward.

        the k-th right exit: 2^-(k - 1)        a wrong one: 0

    Rows that do not count keep the reward handed in and are no exit. A group without a right row is all 0; its order is
    that of its rows, so no group may be permuted.

    Source: S-GRPO, arXiv 2505.07686. The sampler `exits` makes such groups; the advantage is the reward minus the
    group's mean, not divided.
    """

    replaces: ClassVar[bool] = True

    @property
    def order_matters(self) -> bool:
        """A row is an exit by its place in the group."""
        return True

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        right_PG = batch.by_group(right(batch))
        k_PG = right_PG.cumsum(dim=1)
        worth_N = torch.where(right_PG, 2.0 ** (1 - k_PG.double()), 0.0).reshape(-1)
        first_right = right_PG & (k_PG == 1)
        places = first_right.double().argmax(dim=1)[first_right.any(dim=1)]
        metrics = {"exits/first_right": float(places.double().mean()) if places.numel() else 0.0}
        return Out(torch.where(batch.counts, worth_N, value), metrics)
