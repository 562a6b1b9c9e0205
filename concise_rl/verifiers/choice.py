"""Multiple choice: one letter."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

from concise_rl.verifiers.answer import answer_text
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.pool import BatchVerifier

_OPEN = r"(?:\\text|\\textbf|\\mathrm|\\mathbf|[\s*_$({\[\"'])"
_CLOSED = r"(?![\w'])"
_NO_WORD = r"(?!\s[a-z])"

# Repeats are bounded, so that no text costs more than linear time.
_FORMS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\\boxed\s?{_OPEN}{{1,8}}([A-Za-z]){_CLOSED}",
        r"(?i:answer|choice|option)\s{0,4}(?:[:=]|\b)[\s*_]{0,8}(?i:is|would be)?:?[\s*_]{0,8}(?i:option|choice)?"
        rf"{_OPEN}{{0,8}}(?:([A-Z]){_CLOSED}|([a-z]){_CLOSED}{_NO_WORD})",
        r"[(\[]([A-Za-z])[)\]]",
        rf"(?<![\w'\\])([A-Z]){_CLOSED}(?!(?<=[AI])\s(?!is\b)[a-z])",
    )
)
_REFERENCE = re.compile(r"\s*(?:\\boxed\{)?[(\[]?([A-Za-z])[)\]]?\}?[.):]?\s*")


@dataclass
class Choice(BatchVerifier):
    r"""One letter A to Z, read from the answer in the first of these forms that occurs; its last occurrence counts.

    1. `\boxed{B}`, also `\boxed{\text{(B)}}`
    2. `Answer: B`, `the answer is (B)`, `option B`, with Markdown stars or not
    3. `(B)`, `[B]`
    4. a capital that stands alone, unless it is the word in "A man" or "I think"

    A small letter counts in forms 1 to 3 only. The reference is one letter, bare or as `(B)`, `B.` or `\boxed{B}`;
    anything else is unscorable.
    """

    hostile_input_safe: ClassVar[bool] = True

    def __call__(self, completion: str, reference: str) -> Verdict:
        gold = _REFERENCE.fullmatch(reference)
        if gold is None:
            return Verdict.unscorable(f"the reference {reference[:40]!r} is not a letter")
        letter = _chosen_letter(answer_text(completion))
        if letter is None:
            return Verdict.of(False, "no letter found")
        return Verdict.of(letter == gold[1].upper(), f"read {letter}")

    def wrap_reference(self, reference: str) -> str:
        """A completion that must verify: `\\boxed{B}`."""
        gold = _REFERENCE.fullmatch(reference)
        return f"\\boxed{{{gold[1]}}}" if gold else reference


def _chosen_letter(text: str) -> str | None:
    for form in _FORMS:
        for last in deque(form.finditer(text), maxlen=1):
            return next(letter for letter in last.groups() if letter).upper()
    return None
