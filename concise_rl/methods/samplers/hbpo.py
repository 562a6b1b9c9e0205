"""HBPO's rows: subgroups whose thoughts begin with a budget that the model is made to announce."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Sampler
from concise_rl.methods.samplers.drafts import drafts_of, go_on
from concise_rl.rollouts import Generate, LocalRollout, PolicyPrompt, TokenVocabulary

EIGHTHS = (1, 2, 4, 5)
"""The paper's 512, 1024, 2048 and 2560 tokens of 4096."""


@dataclass
class AnnouncedBudgets(Sampler):
    """A group is k subgroups of G / k rows; those of the i-th begin with `words`, {budget} standing for b_i.

    The announcement is forced: it is no length and is not trained. Nothing but the reward holds a row to its budget,
    which is the row value `budget`.

    Source: HBPO, arXiv 2507.15844 section 3.1; zju-real/hbpo, whose words are "with" instead of "within".

    Attributes:
        budgets: tokens, from small to large; None: the paper's 1, 2, 4 and 5 eighths of the row's limit.
        words: what a thought begins with, with {budget} in it. Put the opening tag before it for a model that writes
            the tag itself.

    Raises:
        UserError: budgets that do not rise from 1, words without {budget}, a group that is no multiple of the budgets,
            or a budget above the limit.
    """

    budgets: list[int] | None = None
    words: str = " I will answer the question within {budget} tokens.\n"

    gives: ClassVar[frozenset[str]] = frozenset({"parts.budget"})

    def __post_init__(self) -> None:
        given = list(self.budgets or [])
        if self.budgets is not None and (not given or given[0] < 1 or sorted(set(given)) != given):
            raise UserError(f"AnnouncedBudgets.budgets={given}: give numbers of tokens that rise, such as [512, 1024]")
        if "{budget}" not in self.words:
            raise UserError(f"AnnouncedBudgets.words={self.words!r}: it must contain {{budget}}")

    def check(self, vocabulary: TokenVocabulary, *, group_size: int, limit: int) -> None:
        budgets = self._budgets(limit)
        if group_size % len(budgets):
            raise UserError(
                f"AnnouncedBudgets.budgets={budgets}: trainer.num_generations={group_size} rows do not make "
                f"{len(budgets)} subgroups of one size"
            )
        if budgets[-1] > limit:
            raise UserError(
                f"AnnouncedBudgets.budgets={budgets}: the largest is above trainer.max_completion_length={limit}"
            )

    def __call__(
        self, prompts: Sequence[PolicyPrompt], group_size: int, generate: Generate, rng: random.Random
    ) -> list[LocalRollout]:
        drafts = []
        for n, draft in enumerate(drafts_of(prompts, group_size)):
            budgets = self._budgets(draft.limit)
            budget = budgets[n % group_size * len(budgets) // group_size]
            draft = draft.forced(generate.encode(self.words.replace("{budget}", str(budget))))
            drafts.append(replace(draft, parts={"budget": float(budget)}))
        return [draft.row() for draft in go_on(drafts, [draft.left for draft in drafts], generate, rng)]

    def _budgets(self, limit: int) -> list[int]:
        return list(self.budgets) if self.budgets else [max(1, limit * eighths // 8) for eighths in EIGHTHS]
