"""JET's rows: some whole completions, and early exits of them at set shares of the thought."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Sampler
from concise_rl.methods.samplers.drafts import check_tag, closing_tokens, drafts_of, go_on, with_exits
from concise_rl.rollouts import Generate, LocalRollout, PolicyPrompt, TokenVocabulary


@dataclass
class ExitsAtShares(Sampler):
    """A group is `whole` completions and G - whole early exits, dealt over them as evenly as can be.

    An exit is the first floor(share * n) of the n tokens of a thought; `words`, the model's own think-end token and
    `answer_start`, which are forced; and a new answer of at most `answer_tokens`. A completion with m exits has them at
    m of the `shares`, evenly chosen; with as many exits as shares each comes once. `finish` of an exit is `forced`.

    Rows come completion by completion, its exits from early to late and then itself. A token that several rows begin
    with is trained once, in the row of the first exit behind it. No end is forced onto a row that met its limit.

    Source: JET, arXiv 2509.23392; JinyiHan99/Just-Enough-Think at 89cf33e: 2 whole and 10 cut rows. It cuts the text
    and tokenises it again, and trains what it put in; here cuts are between tokens, and forced tokens are not trained.

    Attributes:
        whole: completions of a group that are not cut.
        shares: of the tokens of a thought, rising, between 0 and 1.
        answer_tokens: the most tokens of an exit's answer.
        words: put before the think-end token.
        answer_start: put after it.

    Raises:
        UserError: no whole completion, shares that do not rise between 0 and 1, no token for the answer, a group
            without an exit, or a tokenizer without the think-end token.
    """

    whole: int = 2
    shares: list[float] = field(default_factory=lambda: [0.1, 0.3, 0.5, 0.7, 0.9])
    answer_tokens: int = 50
    words: str = "\n\nWait, I have enough information to get the final answer."
    answer_start: str = "\n\nTherefore, the final answer is \\boxed{"

    def __post_init__(self) -> None:
        if self.whole < 1 or self.answer_tokens < 1:
            raise UserError(
                f"ExitsAtShares.whole={self.whole}, answer_tokens={self.answer_tokens}: need 1 or more each"
            )
        shares = list(self.shares)
        if not shares or sorted(set(shares)) != shares or not 0 < shares[0] <= shares[-1] < 1:
            raise UserError(f"ExitsAtShares.shares={shares}: give shares that rise between 0 and 1, such as [0.3, 0.7]")

    def check(self, vocabulary: TokenVocabulary, *, group_size: int, limit: int) -> None:
        check_tag("ExitsAtShares", vocabulary)
        if group_size <= self.whole:
            raise UserError(
                f"ExitsAtShares.whole={self.whole}: trainer.num_generations={group_size} leaves no early exit: raise "
                "it, or lower whole"
            )

    def __call__(
        self, prompts: Sequence[PolicyPrompt], group_size: int, generate: Generate, rng: random.Random
    ) -> list[LocalRollout]:
        whole = drafts_of(prompts, self.whole)
        whole = go_on(whole, [draft.limit for draft in whole], generate, rng)
        exits = [len(range(c, group_size - self.whole, self.whole)) for c in range(self.whole)]
        cuts = [self._cuts(chain.thought(generate.vocabulary), exits[c % self.whole]) for c, chain in enumerate(whole)]
        closing = closing_tokens(generate, self.words, self.answer_start)
        groups = with_exits(whole, cuts, closing, generate, rng, self.answer_tokens)
        return [row for group in groups for row in group]

    def _cuts(self, thought: int, m: int) -> list[int]:
        """The lengths of m exits, at the middles of m equal parts of the list of shares."""
        chosen = [self.shares[(2 * k + 1) * len(self.shares) // (2 * m)] for k in range(m)]
        return [math.floor(share * thought + 1e-9) for share in chosen]
