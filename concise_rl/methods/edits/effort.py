"""Some prompts ask for little effort, in the words that Nemotron 3 models were trained on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from concise_rl.data.base import Prompt
from concise_rl.data.efforts import WORDS, Level
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Edit
from concise_rl.methods.edits.wording import ask
from concise_rl.methods.shapers.effort import LOW_EFFORT
from concise_rl.options import choose


@dataclass
class PromptEffort(Edit):
    """Asks a share of the prompts for a level of effort, and says in the column `low_effort` which ask for little.

    Each prompt is drawn by itself, and keeps its draw through a run. For an evaluation at one level set `share` to 1.

    Attributes:
        level: `low`, `medium` or `high`; `high` adds no words.
        share: chance of a prompt to get it, in [0, 1]; the others are left as they are.

    Raises:
        UserError: unknown level, or a share out of its range.
    """

    level: Level = Level.low
    share: float = 0.5

    def __post_init__(self) -> None:
        self.level = choose("PromptEffort.level", Level, self.level)
        if not 0 <= self.share <= 1:
            raise UserError(f"PromptEffort.share={self.share}: a chance is in 0..1")

    def __call__(self, prompt: Prompt, rng: random.Random) -> Prompt:
        """The prompt, at the level if it is drawn."""
        drawn = rng.random() < self.share
        return ask(prompt, WORDS[self.level] if drawn else "", **{LOW_EFFORT: drawn and self.level is Level.low})
