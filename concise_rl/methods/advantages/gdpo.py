"""GDPO: each part of the reward is normalised by itself before they are added, so none drowns in another's spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import standardised, z_score, zero_where_out
from concise_rl.options import choose

TASK, SHAPING = "task", "shaping"
"""Parts that every batch has: the reward before the shapers, and what they changed."""


class GdpoVariant(str, Enum):
    """Whose numbers: TRL's, or verl's, where the last step weighs rows by their tokens."""

    trl = "trl"
    verl = "verl"


@dataclass
class Gdpo(Advantage):
    """Group-wise normalisation of every reward part, a weighted sum, then one normalisation over the step.

    Source: arXiv 2601.05242; TRL's `normalize_then_sum`, verl.

        S_i = sum over parts k of weight_k * (x_ki - mean_group(x_k)) / (sd_group(x_k) + 1e-4)
        A_i = (S_i - mean_step(S)) / (sd_step(S) + 1e-4)

    Deviations are those of a sample (n - 1). `variant=verl` has 1e-6 in the group, and over the step
    (S - m) / sqrt(v + 1e-8) with m and v over tokens, each row weighted by its length. A part that is constant in a
    group adds 0 there, and so does every part of a group of one.

    Parts go by the name that the verifier gives them. Two names are kept: `task` is the reward before shaping, and
    `shaping` is what the shapers added to it, so that a length reward is normalised apart from being right.

    Attributes:
        weights: part to weight; None: task and shaping, 1 each.
        variant: `trl` or `verl`.

    Raises:
        UserError: an unknown variant, no part, or a weight that is not finite.
    """

    weights: dict[str, float] | None = None
    variant: GdpoVariant = GdpoVariant.trl

    def __post_init__(self) -> None:
        self.variant = choose("Gdpo.variant", GdpoVariant, self.variant)
        if self.weights is None:
            self.weights = {TASK: 1.0, SHAPING: 1.0}
        if not self.weights:
            raise UserError("Gdpo.weights={}: name at least one part, such as {task: 1, shaping: 1}")
        for name, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise UserError(f"Gdpo.weights[{name!r}]={weight!r}: a weight is a finite number")

    @property
    def needs(self) -> frozenset[str]:
        """The parts that the verifier gives."""
        return frozenset(PART_PREFIX + name for name in self.weights or () if name not in (TASK, SHAPING))

    @property
    def across_groups(self) -> bool:
        """The last normalisation is over the step."""
        return True

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,) and the parts."""
        epsilon = 1e-4 if self.variant is GdpoVariant.trl else 1e-6
        sum_N = torch.zeros(batch.n_rows, dtype=torch.float64)
        for name, weight in (self.weights or {}).items():
            sum_N += weight * z_score(batch, self._part(batch, value, name), epsilon=epsilon)
        sum_N = zero_where_out(batch, sum_N)
        if self.variant is GdpoVariant.trl:
            credit_N = standardised(sum_N, batch.counts.long(), epsilon=epsilon, inside=False)
        else:
            credit_N = standardised(sum_N, torch.where(batch.counts, batch.lengths, 0), epsilon=1e-8, inside=True)
        return Out(zero_where_out(batch, credit_N))

    def _part(self, batch: RolloutBatch, value: Tensor, name: str) -> Tensor:
        if name == TASK:
            return batch.task_reward
        return value - batch.task_reward if name == SHAPING else batch.part(name)
