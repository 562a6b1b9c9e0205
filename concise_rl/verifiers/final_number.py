"""Answers that are one number."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from concise_rl.verifiers.answer import answer_text
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


@dataclass
class FinalNumber(BatchVerifier):
    """One exact number: the first after the last `####` if there is one, else the last number in the answer.

    How a number is read (no floats: values are compared as fractions, so 27.0 is 27 and 0.1 is 1/10):

    - thousands commas `1,234,567`, only before groups of three digits; any other comma separates two numbers
    - a sign `-3`, `+3`, also before a currency `-$3`; in `5-3` or `(a)-3` it is an operator, so the number is 3
    - decimals `3.50`, `.5`; a full stop after a number ends the sentence
    - exponents `1e3`, `2.5E-3`, at most three digits
    - fractions `3/4` without spaces; a zero denominator is no number
    - currency signs and `%` are dropped: 25% is 25, not 0.25
    - digits glued to a letter, `x2` or `H2O`, are a name; LaTeX `\\frac` is not read (see `MathAnswer`)

    A number of more than `MAX_NUMBER_CHARS` characters is wrong in an answer and unscorable in a reference. The
    reference follows the same rules, so a GSM8K solution (`... #### 42`), `42` and `42.0` all serve.
    """

    hostile_input_safe: ClassVar[bool] = True

    def __call__(self, completion: str, reference: str) -> Verdict:
        gold = _final_number(reference)
        if gold is None:
            return Verdict.unscorable(f"no number in the reference {reference[-40:]!r}")
        number = _final_number(answer_text(completion))
        if number is None:
            return Verdict.of(False, "no number found")
        return Verdict.of(number == gold)

    def wrap_reference(self, reference: str) -> str:
        """A completion that must verify: the reference itself."""
        return reference


def _final_number(text: str) -> Fraction | None:
    _, marker, rest = text.rpartition(MARKER)
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
