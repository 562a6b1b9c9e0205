"""Forcing a reasoner's choices, to hold what it then does against a bed's law: its sums stay its own, and its errors.

On bed M the letters of a composition are forced, on bed S the number of checks; everything else is sampled at
temperature 1, and what the reasoner wrote wrongly stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from concise_rl.testbeds import which_sum
from concise_rl.testbeds.running_total import LETTERS, Composition
from concise_rl.testbeds.teacher import THINK_CLOSE, THINK_OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_MOST_TOKENS = 24
"""Of one continuation: a check has 15 at most."""


class Forcer:
    """Continues texts with a reasoner, a batch at a time.

    Args:
        model: with a tokenizer of one token a character.
        tokenizer: its tokenizer.
        seed: of the sampling.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def write(self, texts: Sequence[str], ends: Callable[[str], bool]) -> list[str]:
        """What the reasoner goes on with after each text, up to EOS or until `ends` says so of what was written."""
        written = [""] * len(texts)
        going = list(range(len(texts)))
        for _ in range(_MOST_TOKENS):
            if not going:
                break
            for i, token in zip(list(going), self._next([texts[i] + written[i] for i in going]), strict=True):
                if token == self.tokenizer.eos_token_id:
                    going.remove(i)
                    continue
                written[i] += self.tokenizer.decode([token])
                if ends(written[i]):
                    going.remove(i)
        return written

    def _next(self, texts: Sequence[str]) -> list[int]:
        rows = [self.tokenizer.encode(text) for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [self.tokenizer.pad_token_id] * (width - len(row)) for row in rows])
        logits = self.model(input_ids=ids, use_cache=False).logits  # padded on the right: causal, so no mask is needed
        last = logits[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])].float()
        return torch.multinomial(last.softmax(-1), 1, generator=self.generator)[:, 0].tolist()


def force_composition(forcer: Forcer, questions: Sequence[str], composition: Composition) -> list[str]:
    """Completions of bed M, the totals of a composition forced."""
    texts = [THINK_OPEN] * len(questions)
    for end in _ends(composition)[:-1]:
        texts = [text + LETTERS[end - 1] for text in texts]
        texts = _append_number(forcer, questions, texts)
    texts = [text + THINK_CLOSE for text in texts]
    answers = forcer.write([q + t for q, t in zip(questions, texts, strict=True)], lambda _: False)
    return [text + answer for text, answer in zip(texts, answers, strict=True)]


def _ends(composition: Composition) -> list[int]:
    return [sum(composition[: i + 1]) for i in range(len(composition))]


def _append_number(forcer: Forcer, questions: Sequence[str], texts: Sequence[str]) -> list[str]:
    prefixes = [q + t for q, t in zip(questions, texts, strict=True)]
    numbers = forcer.write(prefixes, lambda written: not written[-1].isdigit())
    digits = ["".join(c for c in number if c.isdigit()) for number in numbers]
    return [text + number for text, number in zip(texts, digits, strict=True)]


def force_checks(forcer: Forcer, questions: Sequence[str], most: int) -> list[str]:
    """Completions of bed S: options are checked in order until the reasoner says `y`, but at most so many."""
    texts = [THINK_OPEN] * len(questions)
    for place in range(most):
        open_ = [i for i, text in enumerate(texts) if not text.endswith("y") and place < _options(questions[i])]
        started = [texts[i] + which_sum.LETTERS[place] for i in open_]
        prefixes = [questions[i] + text for i, text in zip(open_, started, strict=True)]
        checks = forcer.write(prefixes, lambda written: written[-1] in "yn")
        for i, text, check in zip(open_, started, checks, strict=True):
            texts[i] = text + check
    texts = [text + THINK_CLOSE for text in texts]
    answers = forcer.write([q + t for q, t in zip(questions, texts, strict=True)], lambda _: False)
    return [text + answer for text, answer in zip(texts, answers, strict=True)]


def _options(question: str) -> int:
    return len(which_sum.options(question))
