"""L1's prompt: ask for a number of tokens, drawn for each prompt."""

from __future__ import annotations

import random
from dataclasses import dataclass

from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Edit
from concise_rl.methods.edits.wording import ask
from concise_rl.methods.shapers.l1 import NUM_TOKENS, Kind, budget
from concise_rl.options import choose


@dataclass
class L1Prompt(Edit):
    """Appends ` Think for {n} tokens.` or ` Think for maximum {n} tokens.` to the question, and writes `num_tokens`.

    n is the prompt's own column `num_tokens` where it has one (null: the prompt stays as it is), else uniform over the
    whole numbers from `low` to `high`, both included. The `rng` alone decides, so no state is kept.

    Source: arXiv 2503.04697, cmu-l3/l1 at 93dd330. Its Max data has Exact prompts in every second row; here all prompts
    of a run are of one kind.

    Attributes:
        kind: `exact` or `max`, as that of the shaper `l1`.
        low: fewest tokens that are asked for.
        high: most tokens that are asked for.

    Raises:
        UserError: not 0 <= low <= high.
        DataError: the prompt's own `num_tokens` is neither null nor a number of 0 or more.
    """

    kind: Kind = Kind.exact
    low: int = 100
    high: int = 4000

    def __post_init__(self) -> None:
        self.kind = choose("L1Prompt.kind", Kind, self.kind)
        if not 0 <= self.low <= self.high:
            raise UserError(f"L1Prompt.low={self.low}, high={self.high}: need 0 <= low <= high")

    def __call__(self, prompt: Prompt, rng: random.Random) -> Prompt:
        """The prompt with its budget; its content key stays."""
        given = NUM_TOKENS in prompt.columns
        asked = budget(prompt.id, prompt.columns[NUM_TOKENS]) if given else rng.randint(self.low, self.high)
        if asked is None:
            return prompt
        n = int(asked)
        suffix = f" Think for {n} tokens." if self.kind is Kind.exact else f" Think for maximum {n} tokens."
        return ask(prompt, suffix, **{NUM_TOKENS: n})
