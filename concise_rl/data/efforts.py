"""Levels of effort, in the words that a prompt asks for them with: what edits write and teachers teach."""

from __future__ import annotations

from enum import Enum


class Level(str, Enum):
    """How much a prompt asks the model to think; `high` is the mode without words."""

    low = "low"
    medium = "medium"
    high = "high"


WORDS = {
    Level.low: "\n\n{reasoning effort: low}",
    Level.medium: "\n\n{reasoning effort: efficient}",
    Level.high: "",
}
"""Behind the last user turn, as the chat templates of Nemotron 3 Super (low) and Ultra (medium) put it."""
