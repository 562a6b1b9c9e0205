"""Mathematical answers, compared by math-verify."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from concise_rl.verifiers.answer import answer_text
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.pool import BatchVerifier

MAX_ANSWER_CHARS = 4096
"""A longer box is no answer; without a box, only this tail is read, since math-verify's patterns backtrack."""

_BOX = re.compile(r"\\boxed\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


@dataclass
class MathAnswer(BatchVerifier):
    r"""The answer equals the reference as mathematics, by math-verify 0.9: `verify(gold=reference, target=answer)`.

    The answer is the content of the last `\boxed{}`. Where there is no complete box, math-verify searches the last
    `MAX_ANSWER_CHARS` characters: what follows "the final answer is" or "answer", then the last formula or number.
    The reference is LaTeX or plain, with or without a box or dollar signs: `\frac{1}{2}`, `27.0`, `x=3`, `$(1, 2)$`,
    `\text{Evelyn}`.

    Dollar signs and a final percent sign are dropped on both sides, so 10% is 10 and not 0.1. Everything else follows
    math-verify: `x=5` is 5, sets are unordered, `(1,2)` is ordered, units are dropped, words ignore case, and where one
    of the two is a decimal both are rounded to `decimal_places`.

    Attributes:
        decimal_places: so 0.333333 is 1/3, and 0.33 is not.

    A reference in which nothing can be read is unscorable. Called directly this has no deadline: SymPy can be asked for
    numbers that no machine can hold, so answers of a model go through `verify_many`.
    """

    decimal_places: int = 6
    hostile_input_safe: ClassVar[bool] = False

    def __call__(self, completion: str, reference: str) -> Verdict:
        wanted = _plain(reference)
        gold = _parse_reference(wanted)
        if not gold:
            return Verdict.unscorable(f"math-verify reads nothing in the reference {reference[:60]!r}")
        text = answer_text(completion)
        box = _last_box(text)
        if box is None:
            answer = _parse(text[-MAX_ANSWER_CHARS:])
        elif len(box) > MAX_ANSWER_CHARS:
            return Verdict.of(False, f"a boxed answer of {len(box)} characters")
        elif (boxed := _plain(box)) == wanted:
            return Verdict.of(True)
        else:
            answer = _parse(_boxed(boxed))
        if not answer:
            return Verdict.of(False, "no answer found")
        correct = _math_verify().verify(gold, answer, float_rounding=self.decimal_places, timeout_seconds=None)
        return Verdict.of(bool(correct))

    def wrap_reference(self, reference: str) -> str:
        r"""A completion that must verify: `\boxed{reference}`."""
        return _boxed(_plain(reference))

    def warm_up(self) -> None:
        """Pay for the imports before an item's deadline runs."""
        self(r"\boxed{\frac{1}{2}}", "0.5")


def _last_box(text: str) -> str | None:
    r"""The content of the last `\boxed{}`; None where there is none or its braces do not close."""
    opening = _BOX.match(text, max(0, text.rfind(r"\boxed")))
    if opening is None:
        return None
    depth = 1
    for brace in _BRACES.finditer(text, opening.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[opening.end() : brace.start()]
    return None


def _plain(answer: str) -> str:
    """Without box, dollars, a final percent sign, and the white space around what is left."""
    box = _last_box(answer)
    plain = (answer if box is None else box).replace(r"\$", "").replace("$", "").strip()
    return plain[:-1].removesuffix("\\").rstrip() if plain.endswith("%") else plain


def _boxed(plain: str) -> str:
    return f"\\boxed{{{plain}}}"


@lru_cache(maxsize=1024)
def _parse_reference(plain: str) -> list[Any]:
    # One reference serves a whole group of completions.
    return _parse(_boxed(plain)) if plain else []


def _parse(text: str) -> list[Any]:
    library = _math_verify()
    targets = [library.LatexExtractionConfig(boxed_match_priority=0), library.ExprExtractionConfig()]
    return library.parse(text, targets, parsing_timeout=None)


@lru_cache(maxsize=1)
def _math_verify() -> Any:
    import math_verify

    # It warns that its own timeouts, which need signals and the main thread, are off: the pool has the deadline.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify
