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


THINK_END = "</think>"

_DIFFICULTY = re.compile(r"\bdifficulty:\s*[\[*`]*(easy|hard|cfrb|pfrb)\b", re.IGNORECASE)
_EASY = {"easy", "cfrb"}


def thought_of(text: str, think_end: str = THINK_END) -> str:
    """What stands before the first `think_end`; the whole text where there is none."""
    return text.split(think_end, 1)[0]


def difficulty_label(text: str, think_end: str = THINK_END) -> float:
    """What a completion calls its problem: 1 easy, -1 hard, 0 nothing.

    The first `Difficulty: easy` or `Difficulty: hard` of the thought decides. Upper and lower case are alike, brackets,
    stars and backticks before the word are skipped, and CFRB (easy) and PFRB (hard), the words of DR. SAF's own prompt,
    count too.
    """
    found = _DIFFICULTY.search(thought_of(text, think_end))
    return 0.0 if found is None else 1.0 if found[1].lower() in _EASY else -1.0
