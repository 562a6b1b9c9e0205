"""Answers that are right only letter by letter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from concise_rl.verifiers.answer import answer_text
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.pool import BatchVerifier


@dataclass
class Exact(BatchVerifier):
    """The whole answer equals the reference once runs of white space are one space and the ends are stripped.

    Attributes:
        ignore_case: compare case-folded texts.

    A blank reference is unscorable: an empty answer would earn it.
    """

    ignore_case: bool = False
    hostile_input_safe: ClassVar[bool] = True

    def __call__(self, completion: str, reference: str) -> Verdict:
        wanted = self._normalise(reference)
        if not wanted:
            return Verdict.unscorable("the reference is blank")
        return Verdict.of(self._normalise(answer_text(completion)) == wanted)

    def wrap_reference(self, reference: str) -> str:
        """A completion that must verify: the reference itself."""
        return reference

    def _normalise(self, text: str) -> str:
        text = " ".join(text.split())
        return text.casefold() if self.ignore_case else text
