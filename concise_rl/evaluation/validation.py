"""Evaluations while a run trains: when they come, what is kept of each, which one is the best, and when to stop.

An entry is the summary of one evaluation (`summarize`), its `step`, and `change`, the `difference` to step 0 (where it
is None).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.evaluation.evaluate import Evaluation, difference

RULES = ("accuracy", "tokens", "aes")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Validation:
    """How a run is evaluated while it trains.

    Attributes:
        every: optimizer steps between two evaluations; 0 for none.
        problems: how many problems of the test split each takes.
        best: the rule by which the best checkpoint is kept, see `score`; None is `aes`.
        patience: so many evaluations in a row without a new best end the run; None never does.

    Raises:
        UserError: a value out of its range, or a field that would have no effect without `every`.
    """

    every: int = 0
    problems: int = 128
    best: str | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.every < 0:
            raise UserError(f"evaluation.every={self.every}: give steps between two evaluations, or 0 for none")
        if self.problems < 1:
            raise UserError(f"evaluation.every_problems={self.problems}: give one problem or more")
        if self.best is not None and self.best not in RULES:
            raise UserError(f"evaluation.best={self.best!r}: choose one of {', '.join(RULES)}")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"evaluation.patience={self.patience}: give 1 or more evaluations, or null")
        for name in ("best", "patience"):
            if not self.every and getattr(self, name) is not None:
                raise UserError(
                    f"evaluation.{name}={getattr(self, name)} has no effect without evaluations in training: set "
                    "evaluation.every=N too"
                )

    @property
    def rule(self) -> str:
        return self.best or "aes"

    def due(self, step: int) -> bool:
        """Whether an evaluation belongs to this step."""
        return self.every > 0 and step > 0 and step % self.every == 0


def choose_problems(test: Sequence[Prompt], reported: Sequence[Prompt], n: int) -> tuple[list[Prompt], bool]:
    """Up to `n` problems of the test split, evenly spread, and whether all of them are apart from the reported ones.

    A checkpoint that is chosen by the problems it is reported on looks better than it is, so the others come first.

    Args:
        test: the split.
        reported: its problems that the evaluations before and after training take.
    """
    taken = {prompt.id for prompt in reported}
    rest = [prompt for prompt in test if prompt.id not in taken]
    apart = len(rest) >= n
    pool = rest if apart else list(test)
    n = min(n, len(pool))
    return [pool[i * len(pool) // n] for i in range(n)], apart or not taken


def entry_of(step: int, evaluation: Evaluation, start: Evaluation) -> Entry:
    """What is kept of an evaluation at a step, and how it differs from the one at step 0."""
    summary = {name: value for name, value in evaluation.summary().items() if value is not None and value != []}
    return {"step": step, **summary, "change": difference(start, evaluation) if step else None}


def score(entry: Entry, rule: str) -> tuple[float, ...]:
    """The larger, the better; tuples are compared in order.

    - `accuracy`: accuracy; of equal ones the fewer mean tokens.
    - `tokens`: fewest mean tokens among the evaluations that show no loss of accuracy against step 0, paired by problem
      at 95 %.
    - `aes`: the Accuracy-Efficiency Score against step 0 (`measures.accuracy_efficiency_score`); of equal ones the
      higher accuracy.
    """
    change = entry["change"]
    if rule == "accuracy":
        return entry["accuracy"], -entry["mean_tokens"]
    if rule == "tokens":
        kept = change is None or change["accuracy_points_interval"][1] >= 0
        return float(kept), -entry["mean_tokens"]
    aes = 0.0 if change is None else change["aes"]
    return (-math.inf if aes is None or math.isnan(aes) else aes), entry["accuracy"]


def best_of(entries: Sequence[Entry], rule: str) -> Entry | None:
    """The entry of the highest score, of equal ones the earliest; None where there are none."""
    return max(entries, key=lambda entry: (score(entry, rule), -entry["step"]), default=None)
