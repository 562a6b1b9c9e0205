"""Where the answer stands in a completion."""

from __future__ import annotations

import re
from collections.abc import Iterator

THINK_END = "</think>"

_BOX = re.compile(r"\\boxed\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def answer_text(completion: str) -> str:
    """The text after the last `</think>`; all of it where there is none, so an unclosed think is read as an answer."""
    return completion.rpartition(THINK_END)[2]


def last_box(text: str) -> str | None:
    r"""The content of the last `\boxed{}`; None where there is none or its braces do not close."""
    return next(boxes_from_the_end(text), None)


def boxes_from_the_end(text: str) -> Iterator[str]:
    r"""The contents of the `\boxed{}` of a text, last first, up to one whose braces do not close."""
    end = len(text)
    while (start := text.rfind(r"\boxed", 0, end)) >= 0:
        opening = _BOX.match(text, start)
        content = _braced(text, opening.end()) if opening else None
        if content is None:
            return
        yield content
        end = start


def _braced(text: str, start: int) -> str | None:
    depth = 1
    for brace in _BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : brace.start()]
    return None
