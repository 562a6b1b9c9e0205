"""L1: the prompt names a number of tokens, and the reward holds the answer to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, RolloutBatch
from concise_rl.errors import DataError, UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where
from concise_rl.options import choose

NUM_TOKENS = "num_tokens"
"""The column with the number of tokens that a prompt asks for; null where it asks for none."""


class Kind(str, Enum):
    """What the prompt asks for: this many tokens, or at most this many."""

    exact = "exact"
    max = "max"


class Form(str, Enum):
    """How `kind=max` turns the distance into a reward."""

    paper = "paper"
    code = "code"
    code_added = "code_added"


@dataclass
class L1(Shaper):
    """Holds an answer of L sampled tokens to the n tokens that its prompt asked for (column `num_tokens`).

        exact                   reward -= alpha * |n - L|
        max, variant paper      reward *= clip(alpha * (n - L) + delta, 0, 1)
        max, variant code       reward *= s,    s = (clip(alpha * (n - L), -1, 1) + 1) / 2
        max, variant code_added reward += s

    `exact` scores wrong answers too, and has no lower bound. Under `max` an answer of exactly n tokens gets half of its
    reward with the defaults; in the first two forms a wrong answer's 0 stays 0. Rows whose `num_tokens` is null keep
    their reward. n = 0 is a budget like any other.

    Source: arXiv 2503.04697, cmu-l3/l1 at 93dd330. The code's slope is alpha / 2, and it adds s instead of multiplying
    unless a flag is set that its scripts do not show; then wrong answers earn s. Its configuration file has alpha 0.01.
    The released data marks prompts without a budget by -1 and Max budgets by a minus sign; here null and `kind` say so.

    Attributes:
        kind: `exact` or `max`.
        alpha: reward a token.
        delta: `max`, variant `paper`: share of the reward at L = n, in 0..1.
        variant: of `max`: `paper`, `code` or `code_added`.

    Raises:
        UserError: a field is out of range, or a variant that `exact` does not have.
        DataError: a `num_tokens` that is neither null nor a number of 0 or more; names the prompt.
    """

    kind: Kind = Kind.exact
    alpha: float = 3e-4
    delta: float = 0.5
    variant: Form = Form.paper

    needs = frozenset({COLUMN_PREFIX + NUM_TOKENS})

    def __post_init__(self) -> None:
        self.kind = choose("L1.kind", Kind, self.kind)
        self.variant = choose("L1.variant", Form, self.variant)
        if not 0 <= self.alpha < math.inf:
            raise UserError(f"L1.alpha={self.alpha}: must be 0 or more a token, 0.0003 is the paper's")
        if not 0 <= self.delta <= 1:
            raise UserError(f"L1.delta={self.delta}: a share of the reward is in 0..1, 0.5 is the paper's")
        if self.kind is Kind.exact and self.variant is not Form.paper:
            raise UserError(f"L1.variant={self.variant.value!r}: kind=exact has one form only; set kind=max with it")

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) held to the budgets."""
        asked = [budget(key, n) for key, n in zip(batch.prompt_keys, batch.column(NUM_TOKENS), strict=True)]
        n_N = batch.per_row(torch.tensor([0 if n is None else n for n in asked], dtype=torch.float64))
        held_N = batch.per_row(torch.tensor([n is not None for n in asked], dtype=torch.bool)) & batch.counts
        left_N = n_N - batch.lengths.double()
        metrics = {
            "l1/deviation_mean": mean_where(left_N.abs(), held_N),
            "l1/over_frac": mean_where(left_N < 0, held_N),
        }
        return Out(torch.where(held_N, self._held(value, left_N), value), metrics)

    def _held(self, value: Tensor, left_N: Tensor) -> Tensor:
        if self.kind is Kind.exact:
            return value - self.alpha * left_N.abs()
        if self.variant is Form.paper:
            return value * (self.alpha * left_N + self.delta).clamp(0, 1)
        s_N = ((self.alpha * left_N).clamp(-1, 1) + 1) / 2
        return value * s_N if self.variant is Form.code else value + s_N


def budget(prompt_key: str, value: Any) -> float | None:
    """A prompt's `num_tokens`, None where it has no budget.

    Raises:
        DataError: neither null nor a number of 0 or more.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise DataError(
            f"column {NUM_TOKENS!r} of prompt {prompt_key} is {value!r}: give a number of 0 or more, or null where the "
            "prompt has no budget"
        )
    return float(value)
