"""ScaleRL's forced interruption: each row's thought is interrupted at a random length of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Sampler
from concise_rl.methods.samplers.drafts import check_tag, closing_tokens, drafts_of, within_budgets
from concise_rl.rollouts import Finish, Generate, LocalRollout, PolicyPrompt, TokenVocabulary

LOW, HIGH, OF = 10, 12, 14
"""The paper's thousands of tokens: interrupted from 10 to 12, of 12 for thinking and 2 for the answer."""


@dataclass
class ForcedInterruption(Sampler):
    """A thought that is still open after a number of tokens, drawn for each row, is told that time is up and closed.

        budget ~ U{low..high} sampled tokens, both ends included

    Then `words`, the model's own think-end token and `answer_start` are put behind it; they are no length and are not
    trained. A row that was closed has `finish=budget`; the row value `budget` is what was drawn.

    Source: ScaleRL, arXiv 2510.13786 section 2 (10k to 12k, of 14k tokens); the words are those of its main text, its
    appendix A.10 has a shorter sentence.

    Attributes:
        low, high: ends of what is drawn, in sampled tokens; None: the paper's 10/14 and 12/14 of the row's limit.
        words: put before the think-end token.
        answer_start: put after it.

    Raises:
        UserError: not 1 <= low <= high, a high that leaves no token for the answer, or a tokenizer without the
            think-end token.
    """

    low: int | None = None
    high: int | None = None
    words: str = "Okay, time is up. Let me stop thinking and formulate a final answer now. "
    answer_start: str = ""

    gives: ClassVar[frozenset[str]] = frozenset({"parts.budget"})

    def __post_init__(self) -> None:
        given = [end for end in (self.low, self.high) if end is not None]
        if any(end < 1 for end in given) or sorted(given) != given:
            raise UserError(f"ForcedInterruption.low={self.low}, high={self.high}: need 1 <= low <= high, in tokens")

    def check(self, vocabulary: TokenVocabulary, *, group_size: int, limit: int) -> None:
        check_tag("ForcedInterruption", vocabulary)
        low, high = self._ends(limit)
        if not low <= high < limit:
            raise UserError(
                f"ForcedInterruption.low={self.low}, high={self.high}: thoughts of {low} to {high} tokens do not fit "
                f"into trainer.max_completion_length={limit} with room for an answer: need low <= high < limit"
            )

    def __call__(
        self, prompts: Sequence[PolicyPrompt], group_size: int, generate: Generate, rng: random.Random
    ) -> list[LocalRollout]:
        drafts = drafts_of(prompts, group_size)
        ends = [self._ends(draft.limit) for draft in drafts]
        budgets = [rng.randint(low, max(low, high)) for low, high in ends]
        drafts = [replace(d, parts={"budget": float(b)}) for d, b in zip(drafts, budgets, strict=True)]
        closing = closing_tokens(generate, self.words, self.answer_start)
        rows = within_budgets(drafts, budgets, closing, generate, rng)
        return [row.row(Finish.budget if row.closed else None) for row in rows]

    def _ends(self, limit: int) -> tuple[int, int]:
        low = max(1, limit * LOW // OF) if self.low is None else self.low
        high = max(1, limit * HIGH // OF) if self.high is None else self.high
        return low, high
