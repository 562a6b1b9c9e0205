"""Answers that are one number."""

from __future__ import annotations

import ast
import operator
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, NamedTuple

from concise_rl.errors import UserError
from concise_rl.verifiers.answer import answer_text, last_box
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.notation import (
    mixed_numbers,
    plain_characters,
    repeating_decimals,
    without_emphasis,
    without_separators,
)
from concise_rl.verifiers.pool import BatchVerifier
from concise_rl.verifiers.statement import Part, read
from concise_rl.verifiers.units import Note, split_note

MARKER = "####"
MAX_NUMBER_CHARS = 1000
"""Longer numbers are not read: no answer needs them, and Python refuses to convert 4300 digits."""

MAX_TEXT_CHARS = 100_000
"""So much of an answer is searched, behind the marker or at the end."""

MAX_BOX_CHARS = 400
"""In a longer box, no equation is looked for."""

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_])(?<!_\{)(?<!\^)(?<!\^\{)(?<!\^-)(?<!\^\{-)(?<![pP]er\s)(?<![eE]very\s)(?<![eE]ach\s)"
    r"(?:(?<![)\]}])(?P<sign>[-+]))?"
    r"(?:\\?[$€£¥₹]\s?-?)?"
    rf"(?P<value>{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:\^\{?(?P<power>[0-9]{1,3})\}?)?"
    r"(?P<exponent>[eE][-+]?[0-9]{1,3}(?![0-9A-Za-z]))?"
    rf"(?:/(?P<denominator>{_INTEGER}))?"
    r"(?:\s?(?:\\times|\\cdot|\*|x)\s{0,2}10\^\{?(?P<ten>[-+]?[0-9]{1,3})\}?)?"
)
_FRACTION = re.compile(
    rf"((?<![A-Za-z0-9)\]}}])[-+])?(?<![0-9.])\\[dt]?frac\s?\{{\s?([-+]?{_INTEGER})\s?\}}\s?\{{\s?({_INTEGER})\s?\}}"
)
_SPACED_SIGN = re.compile(r"((?:[=:(]|(?<![A-Za-z])(?:is|to|of|was|are)\s)\s?|\A\s{0,4})-\s{1,2}(?=[0-9.$\\])")
_SPACED_COMMA = re.compile(r"\{,\}|,\\[!,]")
_BEHIND = re.compile(
    r"_\{?\w{1,12}\}?|\s?[AaPp]\.?\s?[Mm](?![A-Za-z])|(?:\s?(?:\\?%|\^\{\\circ\}))?\s?(?!in\b)[A-Za-z]{2,12}(?![A-Za-z])"
)
_CHAIN_CHARS = 200
_CHAIN = re.compile(r"(?:[0-9.,+\-*/()=^ $]|\\times|\\cdot|\\div|\\\$){3,200}\Z")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|lt|gt|leq|geq|ne|neq|pm)(?![A-Za-z])")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' ]{2,80}")
_REMARK = re.compile(r"\\(?:text|textbf|textit|mbox|mathrm)\s?\{[^{}]*\}(?:\^\{?[0-9]\}?)?")

_OPERATORS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_PYTHON = [(r"\\times|\\cdot", "*"), (r"\\div", "/"), (r"\^\{?(-?[0-9]{1,3})\}?", r"**\1"), (r"\\?[$]|\\[,;:! ]", "")]
MAX_POWER_DIGITS = 1000
"""A power of more digits is not worked out."""


class _Stated(NamedTuple):
    value: Fraction
    note: Note = Note()


@dataclass
class FinalNumber(BatchVerifier):
    r"""One number: the first after the last `####`, else that of the last `\boxed{}`, else the last in the answer.

    How a number is read (no floats: values are compared as fractions, so 27.0 is 27 and 0.1 is 1/10):

    - thousands commas `1,234,567`, LaTeX's `1{,}234` and `1,\!234` too, only before groups of three digits; any other
      comma separates two numbers. Spaces may part the groups as well: `9 500`, `9\,500`
    - a sign `-3`, `+3`, also before a currency `-$3`; in `5-3` or `(a)-3` it is an operator, so the number is 3
    - decimals `3.50`, `.5`, `0.\overline{3}`; a full stop after a number ends the sentence
    - exponents `1e3`, `2.5E-3`, `10^3`, `2.5 \times 10^{-3}`, at most three digits
    - fractions `3/4` without spaces, `\frac{3}{4}` and `\frac34` of whole numbers; mixed numbers `2 1/2`, `2\frac12`,
      `2½`; a zero denominator is no number
    - currency signs and `%` are dropped: 25% is 25, not 0.25. So is Markdown's emphasis
    - digits glued to a letter, `x2` or `H2O`, are a name; those of a unit, `m^2` or `per 2 weeks`, are no number; other
      LaTeX is not read (see `MathAnswer`)

    A box with an equals sign states a number where its left side is a name, `x = 42`, or all sides are equal,
    `42 = 6 \times 7`; `2x = 10` and `2+2=5` state none. A box with a list states none. What follows the number, its
    base or "a.m.", may be left out and not contradicted.

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
        if number.note.contradicts(gold.note):
            return Verdict.of(False, "another unit, base or direction")
        apart = abs(number.value - gold.value)
        return Verdict.of(apart <= Fraction(self.relative_tolerance) * abs(gold.value))

    def wrap_reference(self, reference: str) -> str:
        """A completion that must verify: the reference itself."""
        return reference


def _final_number(text: str) -> _Stated | None:
    _, marker, rest = text.rpartition(MARKER)
    if marker:
        return _number_in(rest, first=True)
    box = last_box(rest)
    if box is None:
        return _number_in(rest)
    return _boxed_number(box) if len(box) <= MAX_BOX_CHARS else _number_in(box)


def _number_in(text: str, *, first: bool = False) -> _Stated | None:
    """The first or last number of a text."""
    text = _readable(text[:MAX_TEXT_CHARS] if first else text[-MAX_TEXT_CHARS:])
    matches = _NUMBER.finditer(text)
    match = next(matches, None) if first else next(iter(deque(matches, maxlen=1)), None)
    if match is None:
        return None
    value = _value(match) if first else _chained(text, match)
    behind = _BEHIND.match(text, match.end())
    return None if value is None else _Stated(value, split_note("1" + behind[0])[1] if behind else Note())


def _readable(text: str) -> str:
    """With numbers in the one spelling that `_NUMBER` takes."""
    text = without_separators(without_emphasis(plain_characters(text)), commas=False)
    text = mixed_numbers(repeating_decimals(text))
    text = _FRACTION.sub(_slashed, _SPACED_COMMA.sub(",", text))
    return _SPACED_SIGN.sub(r"\1-", text)


def _slashed(fraction: re.Match[str]) -> str:
    sign = "-" if ((fraction[1] or "") + fraction[2]).count("-") == 1 else ""
    return f" {sign}{fraction[2].lstrip('+-')}/{fraction[3]}"


def _value(match: re.Match[str]) -> Fraction | None:
    if match.end() - match.start() > MAX_NUMBER_CHARS:
        return None
    value = Fraction(match["value"].replace(",", "") + (match["exponent"] or ""))
    power = int(match["power"] or "1")
    denominator = int((match["denominator"] or "1").replace(",", ""))
    if denominator == 0 or len(match["value"]) * power > MAX_POWER_DIGITS:
        return None
    value = value**power * Fraction(10) ** int(match["ten"] or "0")
    return (-value if match["sign"] == "-" else value) / denominator


def _chained(text: str, last: re.Match[str]) -> Fraction | None:
    """The value of the last number, or of the equation that it ends if all sides are equal: `42 = 6 * 7`."""
    value = _value(last)
    chain = _CHAIN.search(text[max(0, last.end() - _CHAIN_CHARS) : last.end()])
    if chain and "=" in chain[0]:
        sides = [arithmetic(side) for side in chain[0].split("=")]
        if None not in sides and len(set(sides)) == 1:
            return sides[0]
    return value


def _boxed_number(box: str) -> _Stated | None:
    """The number that the content of a box states, as a value, by name or as the sides of an equation."""
    found = read(_SPACED_SIGN.sub(r"\1-", box), letters=True)
    values = {_part_value(part) for part in found.parts}
    value = values.pop()
    return _Stated(value, found.parts[0].note) if value is not None and not values else None


def _part_value(part: Part) -> Fraction | None:
    if _RELATION.search(part.text):
        return None
    sides = list(part.sides)
    while len(sides) > 1 and _WORDS.fullmatch(sides[0].strip()):
        sides.pop(0)
    values = {_side(side, alone=len(sides) == 1) for side in sides}
    return values.pop() if len(values) == 1 else None


def _side(side: str, *, alone: bool) -> Fraction | None:
    """The value of arithmetic; of other text that is no side of an equation, its last number."""
    value = arithmetic(_FRACTION.sub(r" \1((\2)/\3)", side))
    if value is not None or not alone:
        return value
    found = _number_in(_REMARK.sub(" ", side)) or _number_in(side)
    return found.value if found else None


def arithmetic(text: str) -> Fraction | None:
    r"""The value of sums, products and powers of numbers, `6 \times 7`; None for all else, and for a division by 0."""
    if len(text) > _CHAIN_CHARS:
        return None
    for pattern, spelling in _PYTHON:
        text = re.sub(pattern, spelling, text)
    text = re.sub(
        r"(?<![0-9.])0+(?=[0-9])", "", " ".join(text.replace(",", "").split()).replace("{", "(").replace("}", ")")
    )
    if not re.fullmatch(r"[-+*/().0-9 ]+", text):
        return None
    try:
        return _evaluated(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _evaluated(node: ast.expr, source: str) -> Fraction:
    match node:
        case ast.Constant():
            return Fraction(source[node.col_offset : node.end_col_offset])  # the text: a float would round it
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluated(operand, source)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluated(operand, source)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, power = _evaluated(left, source), _evaluated(right, source)
            if power.denominator != 1 or len(str(base)) * abs(power) > MAX_POWER_DIGITS:
                raise ValueError("a power too large, or a root")
            return base ** int(power)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluated(left, source), _evaluated(right, source))
    raise ValueError("no arithmetic")
