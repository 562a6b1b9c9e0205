"""Mathematical answers, compared by math-verify."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from concise_rl.verifiers.answer import answer_text
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.pool import BatchVerifier

MAX_ANSWER_CHARS = 8192
"""The tail of an answer that is read: the final answer stands at the end, and math-verify's patterns backtrack."""


@dataclass
class MathAnswer(BatchVerifier):
    r"""The answer equals the reference as mathematics, by math-verify 0.9: `verify(gold=reference, target=answer)`.

    The reference is LaTeX or plain (`\frac{1}{2}`, `27.0`, `x=3`, `(1, 2)`, `\text{Evelyn}`); dollar signs around it
    are dropped and it is read as `\boxed{reference}`. From the last `MAX_ANSWER_CHARS` characters of the answer,
    math-verify takes the last `\boxed{}`; without one, what follows "the final answer is" or "answer", then the last
    formula or number. Sets, tuples, intervals, matrices, equations, units and percentages follow math-verify's rules.

    Attributes:
        decimal_places: where one of the two numbers is a decimal, both are rounded to this many places.

    A reference that parses to nothing is unscorable. Called directly this has no deadline: SymPy can be asked for
    numbers that no machine can hold, so answers of a model go through `verify_many`.
    """

    decimal_places: int = 6
    hostile_input_safe: ClassVar[bool] = False

    def __call__(self, completion: str, reference: str) -> Verdict:
        gold = _parse_reference(reference)
        if not gold:
            return Verdict.unscorable(f"math-verify reads nothing in the reference {reference[:60]!r}")
        answer = _parse(answer_text(completion)[-MAX_ANSWER_CHARS:])
        if not answer:
            return Verdict.of(False, "no answer found")
        correct = _math_verify().verify(gold, answer, float_rounding=self.decimal_places, timeout_seconds=None)
        return Verdict.of(bool(correct))

    def wrap_reference(self, reference: str) -> str:
        r"""A completion that must verify: `\boxed{reference}`."""
        return _boxed(reference)

    def warm_up(self) -> None:
        """Pay for the imports before an item's deadline runs."""
        self(r"\boxed{\frac{1}{2}}", "0.5")


def _boxed(reference: str) -> str:
    r"""`\boxed{reference}` without math-mode dollars, which mean nothing inside a box; an existing box is kept."""
    plain = reference.replace(r"\$", "").replace("$", "").strip()
    return plain if r"\boxed" in plain else f"\\boxed{{{plain}}}"


@lru_cache(maxsize=1024)
def _parse_reference(reference: str) -> list[Any]:
    # One reference serves a whole group of completions.
    return _parse(_boxed(reference)) if reference.strip() else []


def _parse(text: str) -> list[Any]:
    library = _math_verify()
    targets = [library.LatexExtractionConfig(boxed_match_priority=0), library.ExprExtractionConfig()]
    return library.parse(text, targets, parsing_timeout=None)


@lru_cache(maxsize=1)
def _math_verify() -> Any:
    import math_verify

    # It warns once that its own timeouts, which need the main thread and signals, are off: the pool has the deadline.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify
