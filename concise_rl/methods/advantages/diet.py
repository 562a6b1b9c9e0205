"""DIET: tokens beyond a target that difficulty sets cost credit, most on easy prompts, less as training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, RolloutBatch
from concise_rl.errors import DataError, UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.drawing import seeded
from concise_rl.methods.statistics import group_mean, group_std, pass_rate, right, z_score, zero_where_out
from concise_rl.options import choose

TARGET = "target"
"""The dataset column that, where a batch has it, gives the target."""

PERIOD = 100
"""Optimizer steps until the weight of the length part has fallen to 0."""


class DietVariant(str, Enum):
    """Who gets a target of its own: each group, or as in the released code each row."""

    group = "group"
    code = "code"


class Anneal(str, Enum):
    """After step 100 the weight stays 0, or as in the released code the cosine rises again."""

    hold = "hold"
    code = "code"


@dataclass
class Diet(Advantage):
    """Credit from being right, plus weighted credit from being near a target length, each normalised by itself.

    Source: arXiv 2505.19217; thunlp/DIET @07cafd6.

        A = N(c) + w * N(s)                    N(x) = (x - mean(x)) / (sd(x) + 1e-6), sample deviation of the group
        e = max(L - target, 0)                 tokens beyond the target
        s = -(e - mean(e)) / pd(e) where right, else 0     population deviation of the group; 0 where it is 0
        w = weight * p * (cos(pi * step / 100) + 1) / 2    p: share of right rows

    It reads the verdict c, not the reward handed in. The target of a group is drawn uniformly from whole numbers,
    int(max_length * (q - 0.1)) to int(max_length * q) with q the share of wrong rows, and is 0 where all are right:
    easy prompts get short targets. Two variants: `group` draws once a group and never below 0, `code` once a row,
    below 0 too. The draw depends on `seed`, the step and the prompt's key alone, so there is no state. A dataset column
    `target` (null: draw) takes its place.

    Attributes:
        weight: of the length part at step 0 in a group that is all right.
        max_length: tokens that targets are a share of; None: the group's largest sampling limit.
        variant: `group` or `code`.
        anneal: `hold` or `code`.
        column: ask for the column `target`, and refuse to train without it.
        seed: of the targets.

    Raises:
        UserError: an unknown choice or a number out of its range, when built.
        DataError: a target that is no number of 0 or more.
    """

    weight: float = 0.5
    max_length: int | None = None
    variant: DietVariant = DietVariant.group
    anneal: Anneal = Anneal.hold
    column: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self.variant = choose("Diet.variant", DietVariant, self.variant)
        self.anneal = choose("Diet.anneal", Anneal, self.anneal)
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"Diet.weight={self.weight}: must be 0 or more, 0.5 is the paper's")
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"Diet.max_length={self.max_length}: must be at least 1 token, or null")

    @property
    def needs(self) -> frozenset[str]:
        """The column, where it is asked for."""
        return frozenset({COLUMN_PREFIX + TARGET}) if self.column else frozenset()

    @property
    def order_matters(self) -> bool:
        """A target a row is drawn by its place in the group."""
        return self.variant is DietVariant.code

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,); `value` is not read."""
        correct_N = batch.correct.to(torch.float64)
        targets_N = self.targets(batch)
        excess_N = (batch.lengths - targets_N).clamp(min=0.0)
        spread_N = group_std(batch, excess_N, population=True)
        score_N = torch.where(right(batch) & (spread_N > 0), (group_mean(batch, excess_N) - excess_N) / spread_N, 0.0)
        weight_N = self.weight * pass_rate(batch) * self._annealed(batch.step)
        credit_N = z_score(batch, correct_N, epsilon=1e-6) + weight_N * z_score(batch, score_N, epsilon=1e-6)
        n = max(int(batch.counts.sum()), 1)
        metrics = {
            "diet/target_mean": float(targets_N[batch.counts].sum()) / n,
            "diet/weight_mean": float(weight_N[batch.counts].sum()) / n,
        }
        return Out(zero_where_out(batch, credit_N), metrics)

    def targets(self, batch: RolloutBatch) -> Tensor:
        """The target of each row, (N,) float64 tokens."""
        columns = batch.columns.get(TARGET) or [None] * batch.n_prompts
        failed_P = batch.by_group(1 - pass_rate(batch))[:, 0].tolist()
        limits_P = batch.by_group(torch.where(batch.counts, batch.limits, 0)).amax(dim=1).tolist()
        targets: list[float] = []
        for key, given, failed, limit in zip(batch.prompt_keys, columns, failed_P, limits_P, strict=True):
            targets += self._targets_of_group(batch, key, given, failed, self.max_length or limit)
        return torch.tensor(targets, dtype=torch.float64)

    def _targets_of_group(
        self, batch: RolloutBatch, key: str, given: object, failed: float, max_length: int
    ) -> list[float]:
        if given is not None:
            return [_number(key, given)] * batch.group_size
        low, high = int(max_length * (failed - 0.1)), int(max_length * failed)
        if self.variant is DietVariant.group:
            draw = seeded(self.seed, batch.step, key)
            return (
                [float(draw.randint(max(low, 0), high))] * batch.group_size if failed > 0 else [0.0] * batch.group_size
            )
        if failed == 0:
            return [0.0] * batch.group_size
        rows = range(batch.group_size)
        return [float(seeded(self.seed, batch.step, key, g).randint(low, high)) for g in rows]

    def _annealed(self, step: int) -> float:
        if self.anneal is Anneal.hold and step >= PERIOD:
            return 0.0
        return (math.cos(math.pi * step / PERIOD) + 1) / 2


def _number(key: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise DataError(
            f"column 'target' of prompt {key} is {value!r}: Diet needs a number of tokens, 0 or more, or null"
        )
    return number
