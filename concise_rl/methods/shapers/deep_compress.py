"""DeepCompress: prompts easier than the running accuracy are paid for short answers, harder ones for long answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_mean, group_std, mean_where, pass_rate

START = 1.0
"""The running accuracy before the first step: every prompt counts as hard at first."""


@dataclass
class DeepCompress(Shaper):
    """Adds to right rewards a bonus by length whose direction depends on how hard the prompt is.

    With p the share of right rows of the group, P_b the running accuracy of earlier steps, L in sampled tokens, mean
    and population deviation pd over all rows of the group that count:

        z = (L - mean) / (pd + 1e-6)        right: reward += weight / (1 + exp((p - P_b) * z))        wrong: + 0
        after the step: P_b = decay * P_b + (1 - decay) * accuracy of the step

    A prompt above the running accuracy pays short answers, one below it pays **long** ones. P_b starts at 1, so length
    is paid for everywhere until the average has come down, about 100 steps with the default decay. A step without a
    row that counts leaves P_b.

    Source: arXiv 2510.27419 (the reward's code is not public). Its outcomes are 1 and -1; whatever comes in is kept.

    Attributes:
        weight: the most that length can add.
        decay: of the running accuracy, once a step.
        P_b: the running accuracy before the first step.

    Raises:
        UserError: a field is out of its range.
    """

    weight: float = 0.2
    decay: float = 0.99
    P_b: float = START

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"DeepCompress.weight={self.weight}: must be 0 or more, 0.2 is the paper's")
        if not 0 <= self.decay <= 1:
            raise UserError(f"DeepCompress.decay={self.decay}: must be in 0..1, 0.99 is the paper's")
        if not 0 <= self.P_b <= 1:
            raise UserError(f"DeepCompress.P_b={self.P_b}: an accuracy is in 0..1, the paper starts at 1")

    def init(self) -> dict[str, float]:
        """The running accuracy."""
        return {"P_b": float(self.P_b)}

    def __call__(self, batch: RolloutBatch, value: Tensor, state: dict[str, float]) -> tuple[Out, dict[str, float]]:
        """Score the step against the accuracy of earlier steps, then take this one in."""
        running = state["P_b"]
        length_N = batch.lengths.double()
        spread_N = group_std(batch, length_N, population=True)
        z_N = (length_N - group_mean(batch, length_N)) / (spread_N + 1e-6)
        beta_N = pass_rate(batch) - running
        bonus_N = self.weight * torch.sigmoid(-beta_N * z_N)
        right_N = batch.correct & batch.counts
        metrics = {
            "deep_compress/running_accuracy": running,
            "deep_compress/easy_frac": mean_where(beta_N > 0, batch.counts),
            "deep_compress/bonus_mean": mean_where(bonus_N, right_N),
        }
        if bool(batch.counts.any()):
            running = self.decay * running + (1 - self.decay) * mean_where(batch.correct, batch.counts)
        return Out(torch.where(right_N, value + bonus_N, value), metrics), {"P_b": running}
