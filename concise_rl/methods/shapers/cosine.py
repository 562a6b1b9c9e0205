"""The cosine length reward of "Demystifying Long CoT": short when right, long when wrong, never past the limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.repetition import REPETITION
from concise_rl.methods.statistics import mean_where
from concise_rl.options import Variant, choose


@dataclass(kw_only=True)
class Cosine(Shaper):
    """Replaces the reward by a cosine in length: right answers fall from max to min, wrong ones rise from min to max.

    With l the length of a row in sampled tokens:

        reward = exceed                                            if l + margin >= max_length
                 a + (b - a)/2 * (1 + cos(pi * l / max_length))    otherwise
        (a, b) = (min, max) of `correct` for a right answer, (max, min) of `wrong` for a wrong one
        reward -= repetition_weight * repetition

    `repetition` is the share of the row's tokens in a second or later occurrence of an n-gram (`repetition_fraction`),
    which the batch carries as `parts["repetition"]`. Rows without a verdict keep the reward they came with.

    Source: arXiv 2502.03373 sections 4.2 and 4.5, eddycmu/demystify-long-cot at e90cf9b3. The paper subtracts 0.05 from
    every repeated token as a dense reward with its own discount of 0.99; a reward a completion has no place for that,
    so repetition enters as a share. `variant` decides which rows pay for it: `paper`, all rows, as the dense penalty
    does; `code`, wrong rows below the limit only, as the penalty inside the released cosine reward does (which is off
    in every released script, and counts words of prompt and completion together). Without repetition there is no
    difference.

    Attributes:
        correct: (min, max) for right answers.
        wrong: (min, max) for wrong answers, neither above 0.
        max_length: tokens; None takes each row's own limit.
        exceed: reward at the limit, right or wrong.
        margin: tokens before max_length that already count as over the limit.
        repetition_weight: reward lost by a row that is nothing but repetition; 0 is off.
        repetition_ngram: n, in tokens.
        variant: `paper` or `code`, see above.

    Raises:
        UserError: a field is out of range, or the batch has no `parts["repetition"]` when its weight is not 0.
    """

    correct: tuple[float, float] = (1.0, 2.0)
    wrong: tuple[float, float] = (-10.0, 0.0)
    max_length: int | None = None
    exceed: float = -10.0
    margin: int = 16
    repetition_weight: float = 0.0
    repetition_ngram: int = 40
    variant: Variant = Variant.paper

    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.variant = choose("Cosine.variant", Variant, self.variant)
        self.correct = _bounds("Cosine.correct", self.correct)
        self.wrong = _bounds("Cosine.wrong", self.wrong)
        if self.wrong[1] > 0:
            raise UserError(f"Cosine.wrong={self.wrong}: a wrong answer's reward must not be above 0")
        if not 0 <= self.margin < (self.max_length or math.inf):
            raise UserError(
                f"Cosine.margin={self.margin}: must be in 0..max_length={self.max_length}, the end excluded"
            )
        if not math.isfinite(self.exceed):
            raise UserError(f"Cosine.exceed={self.exceed}: must be finite")
        if not (math.isfinite(self.repetition_weight) and self.repetition_weight >= 0):
            raise UserError(f"Cosine.repetition_weight={self.repetition_weight}: must be 0 (off) or more")
        if self.repetition_ngram < 1:
            raise UserError(f"Cosine.repetition_ngram={self.repetition_ngram}: an n-gram has at least one token")

    @property
    def needs(self) -> frozenset[str]:
        """The repetition, where it costs anything."""
        return frozenset({PART_PREFIX + REPETITION} if self.repetition_weight else ())

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) from verdicts, lengths and repetition."""
        length_N = batch.lengths.double()
        max_length_N = batch.limits.double() if self.max_length is None else torch.full_like(length_N, self.max_length)
        falling_N = 0.5 * (1 + torch.cos(length_N / max_length_N.clamp(min=1) * math.pi))
        right_N = self.correct[0] + (self.correct[1] - self.correct[0]) * falling_N
        wrong_N = self.wrong[1] + (self.wrong[0] - self.wrong[1]) * falling_N
        exceeds_N = length_N + self.margin >= max_length_N
        shaped_N = torch.where(exceeds_N, self.exceed, torch.where(batch.correct, right_N, wrong_N))
        metrics = {"cosine/exceed_frac": mean_where(exceeds_N, batch.counts)}
        if self.repetition_weight:
            repetition_N = self._repetition(batch)
            pays_N = ~(batch.correct | exceeds_N) if self.variant is Variant.code else torch.ones_like(exceeds_N)
            shaped_N = shaped_N - self.repetition_weight * repetition_N * pays_N
            metrics["cosine/repetition_mean"] = mean_where(repetition_N, batch.counts)
        shaped_N = torch.where(batch.counts, shaped_N, value)
        metrics["cosine/reward_mean"] = mean_where(shaped_N, batch.counts)
        return Out(shaped_N, metrics)

    @staticmethod
    def _repetition(batch: RolloutBatch) -> Tensor:
        if REPETITION not in batch.parts:
            raise UserError(
                'Cosine.repetition_weight: the batch has no parts["repetition"]; fill it with repetition_fraction'
            )
        return batch.parts[REPETITION]


def _bounds(field: str, value: tuple[float, float]) -> tuple[float, float]:
    if len(value) != 2 or not all(math.isfinite(bound) for bound in value) or value[0] > value[1]:
        raise UserError(f"{field}={tuple(value)}: give two finite numbers, the smaller one first")
    return float(value[0]), float(value[1])
