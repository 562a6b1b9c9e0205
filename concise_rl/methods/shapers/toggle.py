"""Toggle: phases in which a token budget holds, and phases in which nothing does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.history import History
from concise_rl.methods.statistics import group_mean, mean_where, right

Collected = dict[str, list[int]]
"""Prompt key to the lengths of its right rows, in the warm-up."""


@dataclass
class Toggle(Shaper):
    """Takes the reward of answers over the prompt's budget, in every other phase and where the model does well.

        floor(step / m) even:  reward *= 1[mean(reward) < lam or L <= budget]         odd: reward as it came

    L is in sampled tokens, the mean is that of the group's rows that count. Only a group that already does well
    (mean >= lam) is held to a budget, and every other phase leaves the policy free to think longer again. A group
    whose right rows are all over budget is all 0.

    The budget of a prompt is the rho-th percentile (linear between ranks) of the lengths of its right rows in the
    first `warmup_steps` steps. Until these are over there are none; then they are fixed, so a run that took them anew
    after a resume would be another method. Or a data column gives them. A prompt without budget is not held to one.

    Source: Kimi K2.5 report, arXiv 2602.02276. lam, m and rho are not published: the defaults are ours.

    State: in the warm-up the right lengths of each prompt, then a `History` of the budgets. A `History` in the warm-up
    is taken as budgets that are already known.

    Attributes:
        lam: least mean reward of a group that is held to its budget.
        m: steps of a phase; the first one has a budget.
        rho: percentile of the right lengths, 0 to 100.
        warmup_steps: steps that budgets are taken from; 0: they come from `column`, or from the state.
        column: data column with a prompt's budget in tokens, null for none; or None.

    Raises:
        UserError: a field is out of its range, both warmup_steps and column are set, or the column holds no number.
    """

    lam: float = 0.5
    m: int = 10
    rho: float = 75.0
    warmup_steps: int = 0
    column: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.lam):
            raise UserError(f"Toggle.lam={self.lam}: must be a finite mean reward, 0.5 is usual")
        if self.m < 1:
            raise UserError(f"Toggle.m={self.m}: a phase has 1 step or more")
        if not 0 <= self.rho <= 100:
            raise UserError(f"Toggle.rho={self.rho}: a percentile is in 0..100")
        if self.warmup_steps < 0:
            raise UserError(f"Toggle.warmup_steps={self.warmup_steps}: must be 0 or more")
        if self.warmup_steps and self.column is not None:
            raise UserError(
                f"Toggle.column={self.column!r} with warmup_steps={self.warmup_steps}: budgets come from one; leave "
                "out the other"
            )

    @property
    def needs(self) -> frozenset[str]:
        """The column, where there is one."""
        return frozenset() if self.column is None else frozenset({COLUMN_PREFIX + self.column})

    def init(self) -> Any:
        """Nothing collected; without a warm-up, no budgets."""
        return {} if self.warmup_steps else History.empty()

    def __call__(self, batch: RolloutBatch, value: Tensor, state: Any) -> tuple[Out, Any]:
        """Hold the step to the budgets; in the warm-up, collect lengths instead."""
        if not isinstance(state, History) and batch.step >= self.warmup_steps:
            state = self._budgets(state)
        out = self._hold(batch, value, self._budget_of(batch, state))
        if not isinstance(state, History):
            state = _collect(batch, state)
            # The next batch may be several steps on, so what is complete is settled at once.
            state = self._budgets(state) if batch.step + 1 >= self.warmup_steps else state
        return out, state

    def _hold(self, batch: RolloutBatch, value: Tensor, budget_P: Tensor) -> Out:
        budgeted_N = (group_mean(batch, value) >= self.lam) & batch.counts
        over_N = batch.lengths > batch.per_row(budget_P)
        phase = (batch.step // self.m) % 2 == 0
        cut_N = budgeted_N & over_N & phase
        known_P = torch.isfinite(budget_P)
        metrics = {
            "toggle/budget_phase": float(phase),
            "toggle/known_frac": float(known_P.double().mean()),
            "toggle/budget_mean": mean_where(budget_P, known_P),
            "toggle/cut_frac": mean_where(cut_N, batch.counts),
        }
        return Out(torch.where(cut_N, 0.0, value), metrics)

    def _budget_of(self, batch: RolloutBatch, state: Any) -> Tensor:
        """(P,) tokens, infinity where there is none."""
        if self.column is not None:
            given = [_tokens(self.column, entry) for entry in batch.column(self.column)]
        elif isinstance(state, History):
            given = np.nan_to_num(state.lookup(batch.prompt_keys)[0], nan=math.inf).tolist()
        else:
            given = [math.inf] * batch.n_prompts
        return torch.tensor(given, dtype=torch.float64)

    def _budgets(self, collected: Collected) -> History:
        budgets = [float(np.percentile(lengths, self.rho)) for lengths in collected.values()]
        return History.empty().assign(list(collected), budgets, [len(lengths) for lengths in collected.values()])


def _collect(batch: RolloutBatch, collected: Collected) -> Collected:
    """With the lengths of this step's right rows in it, each prompt's in ascending order."""
    collected = dict(collected)
    for row in right(batch).nonzero().flatten().tolist():
        key = batch.prompt_keys[row // batch.group_size]
        collected[key] = sorted([*collected.get(key, ()), int(batch.lengths[row])])
    return collected


def _tokens(column: str, entry: Any) -> float:
    if entry is None:
        return math.inf
    if isinstance(entry, bool) or not isinstance(entry, int | float) or not entry >= 0:
        raise UserError(f"Toggle.column={column!r} holds {entry!r}: a budget is a number of tokens, 0 or more, or null")
    return float(entry)
