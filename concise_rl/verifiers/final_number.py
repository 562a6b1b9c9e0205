"""Answers that are one number."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from concise_rl.errors import UserError
from concise_rl.verifiers.answer import answer_text, last_box
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.pool import BatchVerifier

MARKER = "####"
MAX_NUMBER_CHARS = 1000
"""Longer numbers are not read: no answer needs them, and Python refuses to convert 4300 digits."""

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_])"
    r"(?:(?<![)\]}])(?P<sign>[-+\u2212]))?"
    r"(?:\\?[$€£¥₹]\s?)?"
    rf"(?P<value>{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?P<exponent>[eE][-+]?[0-9]{1,3}(?![0-9A-Za-z]))?"
    rf"(?:/(?P<denominator>{_INTEGER}))?"
)
_FRACTION = re.compile(
    rf"((?<![A-Za-z0-9)\]}}])[-+])?(?<![0-9.])\\[dt]?frac\{{\s?({_INTEGER})\s?\}}\{{\s?({_INTEGER})\s?\}}"
)
_SPACED_COMMA = re.compile(r"\{,\}|,\\[!,]")


@dataclass
class FinalNumber(BatchVerifier):
    r"""One number: the first after the last `####`, else the last in the last `\boxed{}`, else the last in the answer.

    How a number is read (no floats: values are compared as fractions, so 27.0 is 27 and 0.1 is 1/10):

    - thousands commas `1,234,567`, LaTeX's `1{,}234` and `1,\!234` too, only before groups of three digits; any other
      comma separates two numbers
    - a sign `-3`, `+3`, also before a currency `-$3`; in `5-3` or `(a)-3` it is an operator, so the number is 3
    - decimals `3.50`, `.5`; a full stop after a number ends the sentence
    - exponents `1e3`, `2.5E-3`, at most three digits
    - fractions `3/4` without spaces and `\frac{3}{4}` of whole numbers; a zero denominator is no number
    - currency signs and `%` are dropped: 25% is 25, not 0.25
    - digits glued to a letter, `x2` or `H2O`, are a name; other LaTeX is not read (see `MathAnswer`)

    A number of more than `MAX_NUMBER_CHARS` characters is wrong in an answer and unscorable in a reference. The
    reference follows the same rules, so a GSM8K solution (`... #### 42`), `42` and `42.0` all serve.

    Attributes:
        relative_tolerance: `|answer - reference| <= relative_tolerance * |reference|` is right, for references that
            were rounded (0.6666666667 for 2/3).
    """

    relative_tolerance: float = 0.0
    hostile_input_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.relative_tolerance < 1:
            raise UserError(f"FinalNumber.relative_tolerance={self.relative_tolerance} must be 0 to 1, such as 0.0001")

    def __call__(self, completion: str, reference: str) -> Verdict:
        gold = _final_number(reference)
        if gold is None:
            return Verdict.unscorable(f"no number in the reference {reference[-40:]!r}")
        number = _final_number(answer_text(completion))
        if number is None:
            return Verdict.of(False, "no number found")
        return Verdict.of(number == gold or abs(number - gold) <= Fraction(self.relative_tolerance) * abs(gold))

    def wrap_reference(self, reference: str) -> str:
        """A completion that must verify: the reference itself."""
        return reference


def _final_number(text: str) -> Fraction | None:
    _, marker, rest = text.rpartition(MARKER)
    box = None if marker else last_box(rest)
    rest = _FRACTION.sub(r" \1\2/\3", _SPACED_COMMA.sub(",", rest if box is None else box))
    matches = _NUMBER.finditer(rest)
    match = next(matches, None) if marker else next(iter(deque(matches, maxlen=1)), None)
    return _value(match) if match else None


def _value(match: re.Match[str]) -> Fraction | None:
    if match.end() - match.start() > MAX_NUMBER_CHARS:
        return None
    value = Fraction(match["value"].replace(",", "") + (match["exponent"] or ""))
    denominator = int((match["denominator"] or "1").replace(",", ""))
    if denominator == 0:
        return None
    return (-value if match["sign"] in ("-", "\u2212") else value) / denominator
