"""The prompt asks the model to say first whether the problem is easy or hard for it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from concise_rl.data.base import Prompt
from concise_rl.methods.contracts import Edit
from concise_rl.methods.edits.wording import ask


@dataclass
class SelfLabel(Edit):
    """Asks for a line `Difficulty: easy` or `Difficulty: hard`, which `difficulty_label` reads from the thought.

    DR. SAF (arXiv 2508.11582) asks for words of its own and opens the thought with them; these here are ours.

    Attributes:
        words: put behind the question.
    """

    words: str = (
        "\n\nBegin your thought with a line that says how hard this problem is for you: "
        "`Difficulty: easy` if you can answer at once, `Difficulty: hard` if you must reason step by step."
    )

    def __call__(self, prompt: Prompt, rng: random.Random) -> Prompt:
        """The prompt with the request."""
        return ask(prompt, self.words)
