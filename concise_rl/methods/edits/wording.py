"""How an edit adds words to a prompt, and how training and evaluation apply an edit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from concise_rl.data.base import Prompt
from concise_rl.methods.contracts import Edit
from concise_rl.methods.drawing import seeded


def edited(edit: Edit, prompt: Prompt, seed: int) -> Prompt:
    """The prompt as the edit makes it: by seed and content key the same in every step and on every rank.

    Raises:
        ValueError: the edit changed the content key.
    """
    changed = edit(prompt, seeded("edit", seed, prompt.id))
    if changed.id != prompt.id:
        raise ValueError(
            f"{type(edit).__name__} changed the content key of prompt {prompt.id}: keep Prompt.id, by which "
            "histories know the problem"
        )
    return changed


def ask(prompt: Prompt, words: str, **columns: Any) -> Prompt:
    """The prompt with `words` behind the user's question and `columns` beside its own; its content key stays."""
    *before, question = prompt.messages
    question = {**question, "content": question["content"] + words}
    return replace(prompt, messages=(*before, question), columns={**prompt.columns, **columns})
