"""Where the answer stands in a completion."""

from __future__ import annotations

THINK_END = "</think>"


def answer_text(completion: str) -> str:
    """The text after the last `</think>`; all of it where there is none, so an unclosed think is read as an answer."""
    return completion.rpartition(THINK_END)[2]
