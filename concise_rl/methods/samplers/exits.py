"""S-GRPO's rows: one chain of thought, left early at random points and answered there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Sampler
from concise_rl.methods.samplers.drafts import check_tag, closing_tokens, drafts_of, go_on, with_exits
from concise_rl.rollouts import Generate, LocalRollout, PolicyPrompt, TokenVocabulary


@dataclass
class EarlyExits(Sampler):
    """A group is one whole completion, last, and its m = G - 1 early exits before it, from early to late.

    With n the tokens of the thought, the exits lie at m lengths drawn from U{1..n} and sorted. The row of an exit is
    the thought up to there, token for token; `words`, the model's own think-end token and `answer_start`, which are
    forced; and a new answer with what is left of the row's limit. `finish` is `forced`.

    A token of the chain stands in the rows of all later exits. It is trained once: in the row of the first exit behind
    it; those behind the last exit in the whole completion. So a piece of thought gets the credit of stopping after it.
    Each row also trains its own answer. Lengths count all sampled tokens of a row, its part of the chain too.

    Source: S-GRPO, arXiv 2505.07686; the sentence is the paper's.

    Attributes:
        words: put before the think-end token.
        answer_start: put after it.

    Raises:
        UserError: a group of one, or a tokenizer without the think-end token.
    """

    words: str = "Time is limited, stop thinking and start answering.\n"
    answer_start: str = "\n\n"

    def check(self, vocabulary: TokenVocabulary, *, group_size: int, limit: int) -> None:
        check_tag("EarlyExits", vocabulary)
        if group_size < 2:
            raise UserError(
                f"EarlyExits: trainer.num_generations={group_size} leaves no early exit besides the whole completion: "
                "set 2 or more"
            )

    def __call__(
        self, prompts: Sequence[PolicyPrompt], group_size: int, generate: Generate, rng: random.Random
    ) -> list[LocalRollout]:
        whole = drafts_of(prompts, 1)
        whole = go_on(whole, [draft.limit for draft in whole], generate, rng)
        cuts = [self._cuts(chain.thought(generate.vocabulary), group_size - 1, rng) for chain in whole]
        closing = closing_tokens(generate, self.words, self.answer_start)
        return [row for group in with_exits(whole, cuts, closing, generate, rng) for row in group]

    def _cuts(self, thought: int, m: int, rng: random.Random) -> list[int]:
        """An empty thought can only be left where it is."""
        return sorted(rng.randint(1, thought) if thought else 0 for _ in range(m))
