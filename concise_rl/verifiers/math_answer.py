"""Mathematical answers, compared by math-verify."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from concise_rl.errors import UserError
from concise_rl.verifiers.answer import answer_text, last_box
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.pool import BatchVerifier

MAX_ANSWER_CHARS = 4096
"""A longer box is no answer; without a box, only this tail is read, since math-verify's patterns backtrack."""

_BARE_POINT = re.compile(r"(?<=[0-9])\.(?=\s*/)")
_E_NOTATION = re.compile(
    r"(?<![A-Za-z0-9_\\])(?P<digits>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"[eE](?P<exponent>[-+]?[0-9]{1,3})(?![A-Za-z0-9_]|\.[0-9])"
)


@dataclass
class MathAnswer(BatchVerifier):
    r"""The answer equals the reference as mathematics, by math-verify 0.9: `verify(gold=reference, target=answer)`.

    The answer is the content of the last `\boxed{}`. Where there is no complete box, math-verify searches the last
    `MAX_ANSWER_CHARS` characters: what follows "the final answer is" or "answer", then the last formula or number.
    The reference is LaTeX or plain, with or without a box or dollar signs: `\frac{1}{2}`, `27.0`, `x=3`, `$(1, 2)$`,
    `\text{Evelyn}`.

    Dollar signs and a final percent sign are dropped on both sides, so 10% is 10 and not 0.1, and `-1./3` is -1/3.
    Everything else follows math-verify: `x=5` is 5, sets are unordered, `(1,2)` is ordered, units are dropped, words
    ignore case, and where one of the two is a decimal both are rounded to `decimal_places`.

    Attributes:
        decimal_places: so 0.333333 is 1/3, and 0.33 is not.
        relative_tolerance: two numbers are also equal when `|answer - reference| <= relative_tolerance * |reference|`
            (the sciences: 0.01 in Minerva's OCWCourses, arXiv 2206.14858).
        e_notation: `4.5e33` is 4.5 x 10^33 on both sides, as programs print it; by default it is not, because `2e-1`
            may be 2e - 1.

    A reference in which nothing can be read is unscorable. Called directly this has no deadline: SymPy can be asked for
    numbers that no machine can hold, so answers of a model go through `verify_many`.
    """

    decimal_places: int = 6
    relative_tolerance: float = 0.0
    e_notation: bool = False
    hostile_input_safe: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.decimal_places < 0 or not 0 <= self.relative_tolerance < 1:
            raise UserError(
                f"MathAnswer.decimal_places={self.decimal_places}, relative_tolerance={self.relative_tolerance}: "
                "give at least 0 places and a tolerance of 0 to 1, such as 0.01"
            )

    def __call__(self, completion: str, reference: str) -> Verdict:
        wanted = self._plain(reference)
        gold = _parse_reference(wanted)
        if not gold:
            return Verdict.unscorable(f"math-verify reads nothing in the reference {reference[:60]!r}")
        text = answer_text(completion)
        box = last_box(text)
        if box is None:
            answer = _parse(self._numbers(text[-MAX_ANSWER_CHARS:]))
        elif len(box) > MAX_ANSWER_CHARS:
            return Verdict.of(False, f"a boxed answer of {len(box)} characters")
        elif (boxed := self._plain(box)) == wanted:
            return Verdict.of(True)
        else:
            answer = _parse(_boxed(boxed))
        if not answer:
            return Verdict.of(False, "no answer found")
        return Verdict.of(self._equal(gold, answer))

    def equal(self, reference: str, answer: str, *, absolute_tolerance: float | None = None) -> bool:
        """Whether two pieces of mathematics are the same, or numbers at most `absolute_tolerance` apart."""
        wanted, said = self._plain(reference), self._plain(answer)
        if wanted == said:
            return True
        gold, parsed = _parse_reference(wanted), _parse(_boxed(said))
        if not gold or not parsed:
            return False
        near = absolute_tolerance is not None and _within(gold, parsed, absolute=absolute_tolerance)
        return near or self._equal(gold, parsed)

    def _equal(self, gold: list[Any], answer: list[Any]) -> bool:
        if _math_verify().verify(gold, answer, float_rounding=self.decimal_places, timeout_seconds=None):
            return True
        return self.relative_tolerance > 0 and _within(gold, answer, relative=self.relative_tolerance)

    def wrap_reference(self, reference: str) -> str:
        r"""A completion that must verify: `\boxed{reference}`."""
        return _boxed(self._plain(reference))

    def _plain(self, answer: str) -> str:
        """Without box, dollars, a final percent sign, and the white space around what is left."""
        box = last_box(answer)
        plain = (answer if box is None else box).replace(r"\$", "").replace("$", "").strip()
        return self._numbers(plain[:-1].removesuffix("\\").rstrip() if plain.endswith("%") else plain)

    def _numbers(self, text: str) -> str:
        text = _BARE_POINT.sub("", text)
        return _E_NOTATION.sub(r"\g<digits> \\times 10^{\g<exponent>}", text) if self.e_notation else text

    def warm_up(self) -> None:
        """Pay for the imports before an item's deadline runs."""
        self(r"\boxed{\frac{1}{2}}", "0.5")


def _within(gold: list[Any], answer: list[Any], *, absolute: float = 0.0, relative: float = 0.0) -> bool:
    """Whether both parse results are numbers at most `absolute + relative * |gold|` apart."""
    wanted, said = _number(gold), _number(answer)
    if wanted is None or said is None:
        return False
    # A hair more: 0.1 and 1e-1 as floats must not decide at the very edge.
    return abs(said - wanted) <= (absolute + relative * abs(wanted)) * (1 + 1e-9)


def _number(parsed: list[Any]) -> float | None:
    value = parsed[0]
    value = getattr(value, "rhs", value)  # x = 5 is 5
    if not getattr(value, "is_number", False) or value.is_real is False:
        return None
    try:
        return float(value.evalf())
    except (TypeError, OverflowError):
        return None


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
