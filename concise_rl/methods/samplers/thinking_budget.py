"""Thinking budgets: a thought that does not end in time is closed, and the policy answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Sampler
from concise_rl.methods.samplers.drafts import check_tag, closing_tokens, drafts_of, within_budgets
from concise_rl.options import choose
from concise_rl.rollouts import Finish, Generate, LocalRollout, PolicyPrompt, TokenVocabulary


class Mode(str, Enum):
    """What happens to a thought at its budget: it is closed there, or at the next end of a sentence or line."""

    hard = "hard"
    soft_then_hard = "soft_then_hard"


@dataclass
class ThinkingBudget(Sampler):
    """Thoughts get `budget` sampled tokens; one that is still open then is closed, and the rest is for the answer.

        hard             closed after `budget` tokens
        soft_then_hard   closed at the first end of a sentence or line after `budget`, at the latest after
                         `budget + grace`; a thought that ends by itself in that time is left alone

    To close a thought is to put `words`, the model's own think-end token and `answer_start` behind it. These tokens are
    not sampled: they are no length and are not trained. A row that was closed has `finish=budget`. A thought that the
    row's limit meets first, as with a scheduled limit, is cut off there.

    Source: budget forcing, arXiv 2501.19393 section 3.1, in training.

    Attributes:
        budget: sampled tokens of a thought; None: half of the row's limit.
        mode: `hard` or `soft_then_hard`.
        grace: tokens that a thought may go on after its budget under `soft_then_hard`.
        words: put before the think-end token.
        answer_start: put after it.

    Raises:
        UserError: a budget or grace that is not positive, a budget that leaves no token for the answer, or a tokenizer
            without the think-end token.
    """

    budget: int | None = None
    mode: Mode = Mode.hard
    grace: int = 64
    words: str = ""
    answer_start: str = ""

    def __post_init__(self) -> None:
        self.mode = choose("ThinkingBudget.mode", Mode, self.mode)
        if self.budget is not None and self.budget < 1:
            raise UserError(f"ThinkingBudget.budget={self.budget}: must be 1 or more; null is half of the limit")
        if self.grace < 1:
            raise UserError(f"ThinkingBudget.grace={self.grace}: must be 1 or more tokens; mode=hard does not wait")

    def check(self, vocabulary: TokenVocabulary, *, group_size: int, limit: int) -> None:
        check_tag("ThinkingBudget", vocabulary)
        latest = self._budget(limit) + self._grace
        if latest >= limit:
            raise UserError(
                f"ThinkingBudget.budget={self.budget}{f', grace={self.grace}' if self._grace else ''}: a thought may "
                f"take {latest} of trainer.max_completion_length={limit} tokens, and none is left for the answer: "
                "lower the one or raise the other"
            )

    def __call__(
        self, prompts: Sequence[PolicyPrompt], group_size: int, generate: Generate, rng: random.Random
    ) -> list[LocalRollout]:
        drafts = drafts_of(prompts, group_size)
        budgets = [self._budget(draft.limit) for draft in drafts]
        closing = closing_tokens(generate, self.words, self.answer_start)
        rows = within_budgets(drafts, budgets, closing, generate, rng, self._grace)
        return [row.row(Finish.budget if row.closed else None) for row in rows]

    def _budget(self, limit: int) -> int:
        return max(1, limit // 2) if self.budget is None else self.budget

    @property
    def _grace(self) -> int:
        return self.grace if self.mode is Mode.soft_then_hard else 0
