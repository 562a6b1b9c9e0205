"""JET: among the right answers of a question, the shortest earns the most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_max, group_min, mean_where, right
from concise_rl.options import Variant, choose

ACCURACY, FORMAT = 0.9, 0.1
"""Shares of correctness and of format in the reward without length."""


@dataclass
class Jet(Shaper):
    """Replaces the reward by correctness, format, and for right rows a length reward between shortest and longest.

        reward = 0.9 * correct + 0.1 * parts["format"]
        right: reward += (Lmax - L) / (Lmax - Lmin + 1e-8) * alpha * (1 - delta) + delta

    Lmin and Lmax are the shortest and the longest right row of the question, in sampled tokens. A single right row gets
    delta. `variant="code"` takes them over the right rows of all questions of the step, so a hard question loses
    whatever its answers are.

    Source: arXiv 2509.23392, JinyiHan99/Just-Enough-Think at 89cf33e. Its rollouts (most of them cut short and made to
    answer) are the sampler's; a forced token is in no length here, and a truncated row ends without EOS.

    Attributes:
        alpha: weight of the length reward.
        delta: what every right row gets of it, in [0, 1].
        variant: `paper` (per question) or `code` (per step).

    Raises:
        UserError: a field is out of its range.
    """

    alpha: float = 1.2
    delta: float = 0.05
    variant: Variant = Variant.paper

    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.variant = choose("Jet.variant", Variant, self.variant)
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise UserError(f"Jet.alpha={self.alpha}: must be 0 or more, 1.2 is the paper's")
        if not 0 <= self.delta <= 1:
            raise UserError(f"Jet.delta={self.delta}: must be in 0..1, 0.05 is the paper's")

    @property
    def needs(self) -> frozenset[str]:
        """The format."""
        return frozenset({PART_PREFIX + "format"})

    @property
    def across_groups(self) -> bool:
        """The released code compares all questions of the step."""
        return self.variant is Variant.code

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) from verdicts, format and lengths."""
        length_N, right_N = batch.lengths.double(), right(batch)
        shortest_N, longest_N = group_min(batch, length_N, batch.correct), group_max(batch, length_N, batch.correct)
        if self.variant is Variant.code:
            shortest_N, longest_N = shortest_N.min().expand_as(length_N), longest_N.max().expand_as(length_N)
        saved_N = torch.where(right_N, (longest_N - length_N) / (longest_N - shortest_N + 1e-8), 0.0)
        term_N = torch.where(right_N, saved_N * self.alpha * (1 - self.delta) + self.delta, 0.0)
        reward_N = ACCURACY * batch.correct.double() + FORMAT * batch.part("format") + term_N
        metrics = {
            "jet/length_reward_mean": mean_where(term_N, right_N),
            "jet/saved_mean": mean_where(saved_N, right_N),
        }
        return Out(torch.where(batch.counts, reward_N, value), metrics)
