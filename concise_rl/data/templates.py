"""From a `Prompt` to what the policy reads."""

from __future__ import annotations

from typing import Any

from concise_rl.data.base import Message, Prompt


def render(prompt: Prompt, tokenizer: Any, system: str | None = None) -> str | list[Message]:
    """Chat messages where the tokenizer has a chat template (which the caller applies), plain text otherwise.

    Args:
        prompt: the problem.
        tokenizer: only its `chat_template` is looked at.
        system: the system prompt, put first.

    Returns:
        The list of messages; or the system prompt and the contents of the messages, blank lines between them.
    """
    messages = [{"role": "system", "content": system}] if system else []
    messages += prompt.messages
    if tokenizer.chat_template:
        return messages
    return "\n\n".join(message["content"] for message in messages)
