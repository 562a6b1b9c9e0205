"""What a verifier says of one completion, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Verdict:
    """One completion, judged once; every shaper reads this, none reads the text.

    Attributes:
        correct: the answer is right.
        scorable: a verdict could be had; False when the verifier was killed or the reference does not parse.
        reward: task reward before shaping, 1.0 or 0.0 unless the verifier is hierarchical.
        parts: named reward parts of a hierarchical verdict (format, action type, value, ...).
        reason: one line for people, why the row is not scorable or how the answer was read.
    """

    correct: bool
    scorable: bool = True
    reward: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def of(cls, correct: bool, reason: str = "") -> Verdict:
        """Right is 1, wrong is 0."""
        return cls(correct=correct, reward=float(correct), reason=reason)

    @classmethod
    def unscorable(cls, reason: str) -> Verdict:
        """No verdict could be had."""
        return cls(correct=False, scorable=False, reason=reason)


@runtime_checkable
class Verifier(Protocol):
    """Completion text and reference text to `Verdict`; pure, and picklable (it runs in worker processes)."""

    def __call__(self, completion: str, reference: str) -> Verdict: ...
