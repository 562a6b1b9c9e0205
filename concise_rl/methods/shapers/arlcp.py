"""ARLCP: a right answer pays for its length and for its words of reflection, the more reflective the more for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where, right, z_score

REFLECTIONS = "reflections"
"""The part that holds `count_reflections` of each completion's whole text."""

TOTAL = 0.2
"""What a right answer can lose to reflection and length together."""


@dataclass
class Arlcp(Shaper):
    """Subtracts from a right answer's reward by its reflection words R and its length L, in sampled tokens.

        reward -= a1 * sg(z(R)) + (0.2 - a1) * sg(z(L))       right rows; wrong ones keep their reward
        z(x) = (x - mean_C(x)) / (std_C(x) + 1e-6)            C: the group's right rows, n - 1
        a1 = 0.05 for R up to 40, 0.10 up to 80, 0.15 above

    sg is the logistic function. A lone right answer, and right answers that are alike, lose 0.1.

    Source: arXiv 2602.12113, ZeweiYu1/ARLCP at d2c0a53. The released code judges membership of C on the whole response
    and the reward on the part after `</think>`, and lets duplicates of a prompt share their statistics; here one
    verdict serves both, and a prompt that stands twice makes two groups.
    """

    needs = frozenset({PART_PREFIX + REFLECTIONS})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) minus what reflection and length cost."""
        right_N, reflections_N = right(batch), batch.part(REFLECTIONS)
        a1_N = 0.05 + 0.05 * ((reflections_N > 40).double() + (reflections_N > 80))
        of_reflection_N = torch.sigmoid(z_score(batch, reflections_N, right_N, epsilon=1e-6))
        of_length_N = torch.sigmoid(z_score(batch, batch.lengths, right_N, epsilon=1e-6))
        cost_N = torch.where(right_N, a1_N * of_reflection_N + (TOTAL - a1_N) * of_length_N, 0.0)
        metrics = {
            "arlcp/reflections_mean": mean_where(reflections_N, batch.counts),
            "arlcp/cost_mean": mean_where(cost_N, right_N),
        }
        return Out(value - cost_N, metrics)
