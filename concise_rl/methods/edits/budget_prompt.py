"""The prompt says how many tokens to think, and the number follows a schedule."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Edit
from concise_rl.methods.edits.wording import ask


@dataclass
class BudgetPrompt(Edit):
    """Asks for round(budget) tokens.

    A schedule makes the budget follow the step:
    `edit.budget_prompt.budget={exponential: {start: 256, factor: 0.7, every: 100, minimum: 1}}`.

    Attributes:
        budget: tokens.
        template: words put behind the question; `{n}` becomes the number.

    Raises:
        UserError: budget is below 1 or not finite, or the template has no `{n}`.
    """

    budget: float = 256.0
    template: str = "\n\nUse exactly {n} tokens."

    def __post_init__(self) -> None:
        if not (math.isfinite(self.budget) and self.budget >= 1):
            raise UserError(f"BudgetPrompt.budget={self.budget}: a budget is 1 token or more")
        if "{n}" not in self.template:
            raise UserError(f"BudgetPrompt.template={self.template!r}: must hold {{n}}, where the number goes")

    def __call__(self, prompt: Prompt, rng: random.Random) -> Prompt:
        """The prompt with its budget."""
        return ask(prompt, self.template.replace("{n}", str(round(self.budget))))
