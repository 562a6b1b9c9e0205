"""From what servers of OpenAI's API answer, each in its own dialect, to a `Completion`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from concise_rl.evaluation.backends.base import Completion, Sampling

LEEWAY_TOKENS = 64
"""A server that decodes several tokens at once may overshoot the limit by a few; more than that it has not counted."""

FAILED = frozenset({"error", "abort"})
"""Finish reasons of a server that gave up: what it sent is not the model's answer."""

Count = Callable[[str], int]
"""The tokens of a text, by the model's own tokenizer."""


def parse(answer: Any, sampling: Sampling, count: Count | None = None) -> Completion:
    """The first choice of an answer of either endpoint.

    Where thinking ends is told in one of four ways, tried in this order: by the tokens' texts (`logprobs`), by the
    number of reasoning tokens in `usage`, by `count` of the thinking's text; or not at all. A thinking phase that the
    limit cut is the same however it comes: as `reasoning_content` without content, or inline without the closing tag.

    Raises:
        TypeError, KeyError, IndexError, ValueError, AttributeError: it is no completion, or counts what cannot be.
    """
    choice = answer["choices"][0]
    reason, usage = choice["finish_reason"], answer.get("usage") or {}
    if not isinstance(reason, str):
        raise TypeError("text and finish_reason must be texts")
    if reason in FAILED:
        raise ValueError(f"finish_reason is {reason}")
    thinking = ""
    if "message" in choice:
        thinking, content = _message(choice["message"])
        text = _joined(thinking, content, sampling.think_end)
    else:
        text = choice["text"]
    if not isinstance(text, str):
        raise TypeError("text and finish_reason must be texts")
    tokens = _token_texts(choice.get("logprobs") or {})
    most = sampling.max_new_tokens + LEEWAY_TOKENS
    length = token_count(usage["completion_tokens"], most) if "completion_tokens" in usage else len(tokens or ())
    if length == 0 and text:
        raise ValueError("no count of tokens")
    # Servers differ in whether EOS is among the texts; any other gap means that they count something else.
    if tokens is not None and not 0 <= length - len(tokens) <= 1:
        tokens = None
    return Completion(
        text=text,
        length=length,
        truncated=reason == "length",
        think_length=_think_length(text, thinking, tokens, length, _reasoning_tokens(usage, length), sampling, count),
        tokens=tokens,
    )


def token_count(value: Any, most: int) -> int:
    """A number of tokens that a completion of at most so many can have.

    Raises:
        ValueError: it is none.
    """
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"completion_tokens is {str(value)[:20]!r}, not a count up to {most}")
    return value


def _message(message: Mapping[str, Any]) -> tuple[str, str]:
    """Thinking and content of a chat message; vLLM's `reasoning` was once DeepSeek's `reasoning_content`."""
    thinking = message.get("reasoning_content") or message.get("reasoning") or ""
    content = message.get("content") or ""
    if isinstance(content, list):
        parts = [_part(part) for part in content]
        thinking = thinking or "".join(text for kind, text in parts if kind == "thinking")
        content = "".join(text for kind, text in parts if kind == "text")
    if not isinstance(thinking, str) or not isinstance(content, str):
        raise TypeError("content and reasoning must be texts")
    return thinking, content


def _part(part: Any) -> tuple[str, str]:
    """Kind and text of a part of a message's content."""
    if isinstance(part, str):
        return "text", part
    kind = part["type"]
    if kind in ("text", "output_text"):
        return "text", str(part["text"])
    if kind in ("thinking", "reasoning"):
        inside = part[kind] if kind in part else part["text"]
        return "thinking", "".join(_part(one)[1] for one in ([inside] if isinstance(inside, str) else inside))
    raise ValueError(f"a part of the content is of type {str(kind)[:20]!r}")


def _joined(thinking: str, content: str, think_end: str) -> str:
    """The message as the model wrote it: a server with a reasoning parser takes the tags away.

    Thinking without content was cut before its end, or ended the completion: either way no closing tag is made up.
    """
    if not thinking:
        return content
    opening = think_end.replace("/", "", 1)
    text = thinking if thinking.startswith(opening) else opening + thinking
    return f"{text}{think_end}{content}" if content else text


def _token_texts(logprobs: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The tokens' texts, in the form of the completions or of the chat endpoint."""
    if logprobs.get("tokens") is not None:
        return tuple(map(str, logprobs["tokens"]))
    if logprobs.get("content") is not None:
        return tuple(str(entry["token"]) for entry in logprobs["content"])
    return None


def _reasoning_tokens(usage: Mapping[str, Any], length: int) -> int | None:
    """What the server counts as thinking: OpenAI's and DeepSeek's place for it, then SGLang's, which stands alone.

    A 0 says nothing, since servers that do not count send it too.
    """
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    told = details.get("reasoning_tokens") or usage.get("reasoning_tokens")
    return min(told, length) if type(told) is int and told > 0 else None


def _think_length(
    text: str,
    thinking: str,
    tokens: tuple[str, ...] | None,
    length: int,
    told: int | None,
    sampling: Sampling,
    count: Count | None,
) -> int | None:
    """Tokens before the one with which the tag is complete; the tag counts as one token, however many it takes."""
    think_end = sampling.think_end
    if think_end not in text:
        return length
    if tokens is not None and think_end in "".join(tokens):
        before = "".join(tokens).index(think_end)
        spent = 0
        for place, token in enumerate(tokens):
            if spent + len(token) > before:
                return place
            spent += len(token)
    if told is not None or count is None:
        return told
    # The opening tag of thinking that came apart was put there here: nobody knows whether it was sampled.
    return min(length, count(thinking or text.partition(think_end)[0]))
