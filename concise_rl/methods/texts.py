"""What is counted in the text of a completion, for `RolloutBatch.parts`: pure functions from text to a number."""

from __future__ import annotations

import re

REFLECTION_WORDS = (
    "wait",
    "alternatively",
    "hold on",
    "another thought",
    "verify",
    "think again",
    "but",
    "however",
    "alternative",
    "check",
    "double-check",
    "oh",
    "hmm",
)
"""ARLCP's words of reflection, in the order in which they are tried."""

_REFLECTION = re.compile(rf"\b(?:{'|'.join(map(re.escape, REFLECTION_WORDS))})\b", re.IGNORECASE)


def count_reflections(text: str) -> int:
    """How many reflection words a text holds: whole words, case-blind, without overlap.

    "double-check" counts once, "re-check" counts its "check", "verifying" and "hold  on" with two blanks count nothing.

    Source: arXiv 2602.12113, ZeweiYu1/ARLCP at d2c0a53.
    """
    return len(_REFLECTION.findall(text))
