"""How an edit adds words to a prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from concise_rl.data.base import Prompt


def ask(prompt: Prompt, words: str, **columns: Any) -> Prompt:
    """The prompt with `words` behind the user's question and `columns` beside its own; its content key stays."""
    *before, question = prompt.messages
    question = {**question, "content": question["content"] + words}
    return replace(prompt, messages=(*before, question), columns={**prompt.columns, **columns})
