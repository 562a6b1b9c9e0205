"""AnytimeReasoner's rows: chains of thought, cut at several budgets, with several answers at each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Sampler
from concise_rl.methods.samplers.drafts import Draft, check_tag, closing_tokens, go_on, once
from concise_rl.rollouts import Finish, Generate, LocalRollout, PolicyPrompt, TokenVocabulary

THINKING, OF = 4, 5
"""The share of a row's limit that a thought may take; the paper's 8000 and 2176 tokens are about 4 to 1."""


@dataclass
class BudgetedSummaries(Sampler):
    """A group is G / (S * A) chains of thought; each is answered A times at each of S budgets.

    The budgets are thinking * (s + 1) / S tokens, s from 0, rounded down. At a budget the thought so far is closed
    (`words`, the model's own think-end token, `answer_start`, all forced) and answered with what is left of the row's
    limit; such a row has `finish=budget`. A thought that ended before a budget keeps its own end; its rows of later
    budgets are further answers at the budget by which it ended.

    Rows come chain by chain, budget by budget. Their row values `chain` and `segment` say where they belong, `budgets`
    is S, `forced` counts their forced tokens. A token of a chain is trained once, in the first row of its own segment;
    each row trains its own answer.

    Source: AnytimeReasoner, arXiv 2505.13438; sail-sg/AnytimeReasoner at 7e3f5bb.

    Attributes:
        S: budgets of a chain.
        A: answers (the paper's summaries) at a budget.
        thinking: tokens of the largest budget; None: four fifths of the row's limit.
        words: put before the think-end token.
        answer_start: put after it.

    Raises:
        UserError: S or A below 1, a group that is no multiple of S * A, budgets that do not fit, or a tokenizer
            without the think-end token.
    """

    S: int = 4
    A: int = 4
    thinking: int | None = None
    words: str = ""
    answer_start: str = ""

    gives: ClassVar[frozenset[str]] = frozenset({"parts.chain", "parts.segment"})

    def __post_init__(self) -> None:
        if self.S < 1 or self.A < 1:
            raise UserError(f"BudgetedSummaries.S={self.S}, A={self.A}: need at least one budget and one answer")
        if self.thinking is not None and self.thinking < self.S:
            raise UserError(f"BudgetedSummaries.thinking={self.thinking}: S={self.S} budgets need as many tokens")

    def check(self, vocabulary: TokenVocabulary, *, group_size: int, limit: int) -> None:
        check_tag("BudgetedSummaries", vocabulary)
        if group_size % (self.S * self.A):
            raise UserError(
                f"BudgetedSummaries.S={self.S}, A={self.A}: trainer.num_generations={group_size} is no multiple of "
                f"S * A = {self.S * self.A} answers of a chain"
            )
        if not self.S <= self._thinking(limit) < limit:
            raise UserError(
                f"BudgetedSummaries.thinking={self._thinking(limit)}: {self.S} budgets and an answer do not fit into "
                f"trainer.max_completion_length={limit}"
            )

    def __call__(
        self, prompts: Sequence[PolicyPrompt], group_size: int, generate: Generate, rng: random.Random
    ) -> list[LocalRollout]:
        chains = [
            Draft(prompt, prompt.limit, parts={"chain": float(c), "budgets": float(self.S)})
            for prompt in prompts
            for c in range(group_size // (self.S * self.A))
        ]
        chains = go_on(chains, [self._thinking(chain.limit) for chain in chains], generate, rng)
        closing = closing_tokens(generate, self.words, self.answer_start)
        begun = [row for chain in chains for row in self._begun(chain, generate.vocabulary, closing)]
        drafts = go_on([draft for draft, _ in begun], [draft.left for draft, _ in begun], generate, rng)
        return [
            draft.row(Finish.budget if draft.closed else None, trained=once(draft, start))
            for draft, (_, start) in zip(drafts, begun, strict=True)
        ]

    def _begun(self, chain: Draft, vocabulary: TokenVocabulary, closing: Sequence[int]) -> list[tuple[Draft, int]]:
        """How the S * A rows of a chain begin, and from which token on each of them trains."""
        thought, rows, trained = chain.thought(vocabulary), list[tuple[Draft, int]](), 0
        budgets = [self._thinking(chain.limit) * (s + 1) // self.S for s in range(self.S)]
        for s, budget in enumerate(budgets):
            if thought < budget:  # so its end was sampled within the budget
                begun, segment = chain.cut(thought + 1), next(k for k, b in enumerate(budgets) if thought < b)
            else:
                begun, segment = replace(chain.cut(budget).forced(closing), closed=True), s
            forced = float(len(begun.sampled) - sum(begun.sampled))
            begun = replace(begun, parts={**chain.parts, "segment": float(segment), "forced": forced})
            for _ in range(self.A):
                rows.append((begun, trained))
                trained = min(budget, thought + 1)
        return rows

    def _thinking(self, limit: int) -> int:
        return max(self.S, limit * THINKING // OF) if self.thinking is None else self.thinking
