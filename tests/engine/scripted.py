"""A trainer whose completions are written by hand: a function of the question, its row in the group, and the step."""

from __future__ import annotations

from collections.abc import Callable

from concise_rl.engine.trainer import ConciseTrainer
from concise_rl.testbeds.chain_sum import answer, running_sum

Script = Callable[[str, int, int], tuple[str, bool]]
"""(question, g, step) to the completion's text and whether it ends, instead of being cut off."""


def right(question: str, *, checks: int = 0) -> str:
    """The whole chain of sums, repeated `checks` times, and the right answer."""
    return f"<think>{';wait,'.join([running_sum(question)] * (1 + checks))}</think>{answer(question)}"


def wrong(question: str, *, checks: int = 0) -> str:
    """The same thought with another answer."""
    return right(question, checks=checks) + "0"


def scripted(script: Script) -> type[ConciseTrainer]:
    """A `ConciseTrainer` that says what the script says."""

    class Scripted(ConciseTrainer):
        def _generate_single_turn(self, prompt_ids, *args):
            completions = []
            for b, ids in enumerate(prompt_ids):
                text, ends = script(self._tokenizer.decode(ids), b % self.num_generations, self.state.global_step)
                ids = self._tokenizer.encode(text)
                completions.append([*ids, self._tokenizer.eos_token_id] if ends else ids)
            return completions, None

    return Scripted
