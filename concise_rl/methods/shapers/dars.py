"""Shop-R1's difficulty-aware reward scaling: the part of an action that is hard to get right pays the most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where
from concise_rl.verifiers.json_action import SHORT_WEIGHT

_SHORT, _LONG = "short_similarity", "long_similarity"


@dataclass
class Dars(Shaper):
    """Scales the similarity of an action's long text by `factor` and lets similarities count from `threshold` on.

    The verdict of a JSON action is a sum of parts (`JsonAction`): format, action type, fields that are not empty, the
    similarity (ROUGE-L, in [0, 1]) of the easy field with the weight 0.1, and that of the hard one, the name clicked or
    the text typed, with the weight 1. With t(s) = s from `threshold` on and 0 below:

        reward += 0.1 * (t(short) - short) + (factor * t(long) - long)

    so the reward as a whole is 0.1 t(short) + factor t(long) + the other parts; with factor 1 and threshold 0 nothing
    changes. Under a verifier without similarities the answer itself is the hard field: long is 1 where right, 0 where
    wrong.
    Rows without a verdict keep the reward they came with.

    Source: arXiv 2507.17842; no code was released. The paper lets a similarity count above a threshold, "e.g.
    0.75"; here it counts at the threshold too, so that an exact match passes any. Its self-certainty bonus is left out,
    see docs/methods/shop_r1.md.

    Attributes:
        factor: worth of a perfect hard field.
        threshold: smallest similarity that counts, in [0, 1].

    Raises:
        UserError: a field is out of range, or the verdicts have one similarity without the other.
    """

    factor: float = 1000.0
    threshold: float = 0.75

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor >= 0):
            raise UserError(f"Dars.factor={self.factor}: must be 0 or more, 1000 is the paper's")
        if not 0 <= self.threshold <= 1:
            raise UserError(f"Dars.threshold={self.threshold}: a similarity is in 0..1, 0.75 is the paper's")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) with its similarities scaled."""
        short_N, long_N = _similarities(batch)
        change_N = SHORT_WEIGHT * (self._from_threshold(short_N) - short_N)
        change_N = change_N + (self.factor * self._from_threshold(long_N) - long_N)
        metrics = {
            "dars/long_similarity_mean": mean_where(long_N, batch.counts),
            "dars/passed_frac": mean_where((long_N > 0) & (long_N >= self.threshold), batch.counts),
        }
        return Out(value + change_N * batch.counts, metrics)

    def _from_threshold(self, similarity_N: Tensor) -> Tensor:
        return torch.where(similarity_N >= self.threshold, similarity_N, 0.0)


def _similarities(batch: RolloutBatch) -> tuple[Tensor, Tensor]:
    """Similarity of the easy and of the hard field, (N,) each."""
    missing = [name for name in (_SHORT, _LONG) if name not in batch.parts]
    if len(missing) == 2:
        return torch.zeros_like(batch.task_reward), batch.correct.double()
    if missing:
        raise UserError(
            f"Dars: the verdicts have no part {missing[0]!r}, only {sorted(batch.parts)}; use the verifier json_action"
        )
    return batch.parts[_SHORT], batch.parts[_LONG]
