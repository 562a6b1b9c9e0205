"""Where the answer stands in a completion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

THINK_END = "</think>"
"""The tag that ends the thinking of most models."""

_think_end: ContextVar[str] = ContextVar("think_end", default=THINK_END)

_BOX = re.compile(r"\\boxed\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def answer_text(completion: str, think_end: str | None = None) -> str:
    """The text after the last think-end tag; all of it where there is none, so an unclosed think is read as an answer.

    Args:
        completion: what the model wrote.
        think_end: the tag; by default that of the call of `verify_many` which runs this verifier, else `</think>`.
    """
    return completion.rpartition(think_end or _think_end.get())[2]


@contextmanager
def thinking_ends_with(tag: str) -> Iterator[None]:
    """Inside, `answer_text` takes this tag by default. A verifier is given two texts, and need not know the model."""
    token = _think_end.set(tag)
    try:
        yield
    finally:
        _think_end.reset(token)


def last_box(text: str) -> str | None:
    r"""The content of the last `\boxed{}`; None where there is none or its braces do not close."""
    return next(boxes_from_the_end(text), None)


def boxes_from_the_end(text: str) -> Iterator[str]:
    r"""The contents of the `\boxed{}` of a text, last first, up to one whose braces do not close."""
    end = len(text)
    while (start := text.rfind(r"\boxed", 0, end)) >= 0:
        opening = _BOX.match(text, start)
        content = braced(text, opening.end()) if opening else None
        if content is None:
            return
        yield content
        end = start


def braced(text: str, start: int) -> str | None:
    """The text from `start` to the brace that closes the one before it; None where none does."""
    depth = 1
    for brace in _BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : brace.start()]
    return None
