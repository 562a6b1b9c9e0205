"""From a `Prompt` to what the policy reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from concise_rl.data.base import Message, Prompt
from concise_rl.data.bounded import Bounded, OutOfBounds, WorkFailed, bounded
from concise_rl.errors import UserError

RENDERED = "concise_rl.data.templates:rendered"
PROBE: tuple[Message, ...] = ({"role": "user", "content": "What is 7 + 5?"},)


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


def apply_template(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    arguments: Mapping[str, Any] | None = None,
    *,
    process: Bounded | None = None,
) -> list[str]:
    """Each conversation as text, up to where the model is to go on, through the tokenizer's chat template.

    A template comes with a model, from whoever made it, and is a program. It is run in a process of its own, within
    the bounds of `concise_rl.data.bounded`, as `tokenizer.apply_chat_template` would run it in this one.

    Args:
        process: of `rendered`, where more calls will follow; None takes one of its own.

    Raises:
        UserError: it takes too long, too much memory, makes too much text, or refuses a conversation.
    """
    if not conversations:
        return []
    request = {
        "template": tokenizer.get_chat_template(),
        "variables": {**tokenizer.special_tokens_map, **(arguments or {})},
        "conversations": [list(conversation) for conversation in conversations],
    }
    texts: list[str] = []
    try:
        texts.extend(process.ask(request) if process else bounded(RENDERED, request))
    except (OutOfBounds, WorkFailed) as error:
        raised = f"raises {error.kind}: {error}" if isinstance(error, WorkFailed) else str(error)
        asked = " ".join(conversations[min(len(texts), len(conversations) - 1)][-1]["content"].split())[:60]
        raise UserError(
            f"the chat template of {getattr(tokenizer, 'name_or_path', '')} {raised[:300]} (at {asked!r}): "
            "mend it, or give the tokenizer another chat_template"
        ) from error
    return texts


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Prompts as tokens; where a chat template made the text, it has put the special tokens in itself."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=not tokenizer.chat_template)["input_ids"]


class PromptTokens:
    """Conversations as tokens, call after call: the process that runs the chat template stays for the next."""

    def __init__(self) -> None:
        self._process = Bounded(RENDERED)

    def __call__(
        self, tokenizer: Any, conversations: Sequence[Sequence[Message]], arguments: Mapping[str, Any] | None
    ) -> list[list[int]]:
        return token_ids(tokenizer, apply_template(tokenizer, conversations, arguments, process=self._process))


def check_template(tokenizer: Any) -> None:
    """Refuse a chat template that no question can be put to, before anything in this process runs it.

    Raises:
        UserError: it goes beyond the bounds of time or memory. What it may raise is left to the real conversations.
    """
    if not tokenizer.chat_template:
        return
    try:
        apply_template(tokenizer, [PROBE])
    except UserError as error:
        if isinstance(error.__cause__, OutOfBounds):
            raise


def rendered(request: Mapping[str, Any]) -> Iterator[str]:
    """On the other side of `bounded`."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def texts() -> Iterator[str]:
        for conversation in request["conversations"]:
            text, _ = render_jinja_template(
                conversations=[conversation],
                chat_template=request["template"],
                add_generation_prompt=True,
                **request["variables"],
            )
            yield text[0]

    return texts()
