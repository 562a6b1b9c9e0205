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


def necessary_share(text: str, reference: str) -> float:
    """How much of a thought was needed: its share up to the end of the first chunk that holds the right answer.

    The thought is all before `</think>`. It is cut into chunks, each beginning at a reflection word, and a chunk is
    right if the reference stands in it as a word of its own. Shares are of characters, which stand for tokens. 0 where
    no chunk is right. DECS, arXiv 2509.25827, asks a judge model about each chunk instead.

    Example:
        ```python
        necessary_share("<think>2+3=5, wait, 5</think>5", "5")  # 14 of 21 characters
        ```
    """
    thought = thought_of(text)
    word = re.escape(reference)
    # What precedes the word is looked at behind it: a pattern that begins with a literal is searched at C's speed.
    right = re.search(rf"{word}(?<![\w.]{word})(?!\w|\.\d)", thought) if reference else None
    if right is None:
        return 0.0
    turn = _REFLECTION.search(thought, right.end())
    return (turn.start() if turn else len(thought)) / len(thought)


def has_format(text: str, think_end: str = THINK_END) -> bool:
    """Whether a completion closes its thought exactly once and says something after it."""
    _, found, answer = text.partition(think_end)
    return bool(found) and think_end not in answer and bool(answer.strip())
