"""AdaptThink's rows: one part of a group begins with the end of its thought, the other with a thought."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Sampler
from concise_rl.methods.samplers.drafts import Draft, check_tag, drafts_of, go_on
from concise_rl.rollouts import Generate, LocalRollout, PolicyPrompt, TokenVocabulary


@dataclass
class ForcedStarts(Sampler):
    """The first `share` of a group's rows begins with the think-end token (no thinking), the rest with `think_start`.

    How a row begins is drawn by the sampler, not by the policy, and that is what is to be learned. So the first token
    of each row is no length, but is trained, with the log-probability of the draw as its old one: log(n / G) of the n
    rows that do not think, log(1 - n / G) of the others. Further tokens of `think_start` are neither. The row value
    `no_think` is 1 where the thought was skipped.

    Source: AdaptThink, arXiv 2505.13417; THU-KEG/AdaptThink at 84cf948: 8 of 16 rows, 4096 tokens without thinking of
    16384, "Alright" before a thought.

    Attributes:
        share: of the rows of a group that do not think, rounded to whole rows.
        no_think_limit: tokens that a row without thinking may sample; None: a quarter of the row's limit.
        think_start: how the other rows begin.

    Raises:
        UserError: a share that leaves one kind without rows, a limit below 1, an empty start, or a tokenizer without
            the think-end token.
    """

    share: float = 0.5
    no_think_limit: int | None = None
    think_start: str = "Alright"

    gives: ClassVar[frozenset[str]] = frozenset({"parts.no_think"})

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"ForcedStarts.share={self.share}: both kinds of rows are needed, so between 0 and 1")
        if self.no_think_limit is not None and self.no_think_limit < 1:
            raise UserError(f"ForcedStarts.no_think_limit={self.no_think_limit}: must be 1 or more tokens")
        if not self.think_start:
            raise UserError("ForcedStarts.think_start='': give the words that a thought begins with")

    @property
    def needs(self) -> frozenset[str]:
        """Old log-probs, into which those of the draws are put."""
        return frozenset({"logprobs"})

    def check(self, vocabulary: TokenVocabulary, *, group_size: int, limit: int) -> None:
        check_tag("ForcedStarts", vocabulary)
        n = self._rows(group_size)
        if not 0 < n < group_size:
            raise UserError(
                f"ForcedStarts.share={self.share}: of trainer.num_generations={group_size} rows {n} do not think, and "
                "both kinds are needed: raise the one or change the other"
            )

    def __call__(
        self, prompts: Sequence[PolicyPrompt], group_size: int, generate: Generate, rng: random.Random
    ) -> list[LocalRollout]:
        n = self._rows(group_size)
        end = generate.vocabulary.think_end_id
        assert end is not None, "checked at start"
        thinking = generate.encode(self.think_start)
        drafts = [
            self._begun(draft, (end,) if g % group_size < n else thinking, no_think=g % group_size < n)
            for g, draft in enumerate(drafts_of(prompts, group_size))
        ]
        rows = [draft.row() for draft in go_on(drafts, [draft.left for draft in drafts], generate, rng)]
        return [self._trained(row, n / group_size) for row in rows]

    def _begun(self, draft: Draft, start: Sequence[int], *, no_think: bool) -> Draft:
        short = max(1, draft.limit // 4) if self.no_think_limit is None else min(self.no_think_limit, draft.limit)
        limit = short if no_think else draft.limit
        return replace(draft, limit=limit, parts={"no_think": float(no_think)}).forced(start)

    def _trained(self, row: LocalRollout, share: float) -> LocalRollout:
        assert row.sampled is not None, "its start is forced"
        drawn = math.log(share if row.parts["no_think"] else 1 - share)
        return replace(row, trained=(True, *row.sampled[1:]), drawn={0: drawn})

    def _rows(self, group_size: int) -> int:
        """Rows of a group that do not think."""
        return round(self.share * group_size)
