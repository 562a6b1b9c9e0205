"""Answers that are right when they say one thing, whatever else they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from concise_rl.verifiers.answer import answer_text
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.pool import BatchVerifier


@dataclass
class Includes(BatchVerifier):
    """The reference occurs in the answer, case and white space aside.

    A generous rule for short facts and commands ("Canberra" in "It is Canberra."): it takes a list of every city for an
    answer, so it belongs beside a measure of length, such as the YapScore. A blank reference is unscorable.
    """

    hostile_input_safe: ClassVar[bool] = True

    def __call__(self, completion: str, reference: str) -> Verdict:
        wanted = _normalise(reference)
        if not wanted:
            return Verdict.unscorable("the reference is blank")
        return Verdict.of(wanted in _normalise(answer_text(completion)))

    def wrap_reference(self, reference: str) -> str:
        """A completion that must verify: the reference itself."""
        return reference


def _normalise(text: str) -> str:
    return " ".join(text.split()).casefold()
