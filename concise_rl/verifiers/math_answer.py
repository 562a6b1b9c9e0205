"""Mathematical answers, compared by math-verify."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from concise_rl.errors import UserError
from concise_rl.verifiers.answer import answer_text, last_box
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.equality import (
    Tolerance,
    parse,
    parse_prose,
    same_equation,
    same_parsed,
    same_solutions,
    same_value,
)
from concise_rl.verifiers.notation import plain_characters, without_emphasis
from concise_rl.verifiers.pool import BatchVerifier
from concise_rl.verifiers.statement import Part, Statement, alternatives, names_differ, read, split_list

MAX_ANSWER_CHARS = 4096
"""A longer box is no answer; without a box, only this tail is read, since math-verify's patterns backtrack."""

_MAX_DEPTH = 20
"""Brackets in brackets beyond this are compared as one text."""

_COMMAND = re.compile(r"\\[A-Za-z]+")
_SPACED_UNIT = re.compile(r"[0-9]\s[mgLs]$")
_STATED = re.compile(r"(?i:answer)\s{0,4}(?:(?i:is|:|=)\s{0,4}){1,2}(?P<said>[^\n]{1,400})")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_NUMERAL = re.compile(r"[-+]?[0-9A-Za-z]+")
_RELATION = re.compile(
    r"[<>]|\\(?:le|ge|lt|gt|leq|geq|leqslant|geqslant|cup|ne|neq)(?![A-Za-z])|^\s*[(\[].*,.*[)\]]\s*$"
)


@dataclass
class MathAnswer(BatchVerifier):
    r"""The answer equals the reference as mathematics, by math-verify 0.9: `verify(gold=reference, target=answer)`.

    The answer is the content of the last `\boxed{}`. Where there is no complete box, it is what follows "the answer is"
    if that is mathematics alone; else math-verify searches the last `MAX_ANSWER_CHARS` characters. The reference is
    LaTeX or plain, with or without a box or dollar signs: `\frac{1}{2}`, `27.0`, `x=3`, `$(1, 2)$`, `\text{Evelyn}`.

    Before math-verify sees them, both are taken apart in the same way:

    - Fonts, emphasis, full-width characters, separators of thousands and the spelling of fractions do not matter:
      `\text{13}`, `**13**`, `10\,000`, `2 1/2`, `0.\overline{3}`. A final percent sign does not either: 10% is 10.
    - An equation states a number only if its left side is a plain name (`x = 5`, `AB = 5`, `\text{Area} = 5`), or if
      all its sides are equal (`42 = 6 \times 7`). Any other is an equation, right where its unknowns are those of the
      reference and the two differences of sides have a constant ratio: `6x+2y=20` for `3x+y=10`.
    - Base, unit, a.m. or p.m., increase or decrease, and compass direction may be left out, but not contradicted.
    - Members of a list may come in any order; between brackets, and in a sequence with dots, they may not.

    Attributes:
        decimal_places: two numbers of which one is a decimal are rounded to so many, and may differ by 0.01 % of the
            larger at most, so that 0.0000001 is not 0.0000002.
        relative_tolerance: `|answer - reference| <= relative_tolerance * |reference|` is right for numbers, and then
            `decimal_places` plays no part: 0.05 is not 0.02.
        e_notation: `4.5e33` is a number; without it, `2e-1` may be 2e - 1.

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
        if not _can_be_read(read(reference, e_notation=self.e_notation)):
            return Verdict.unscorable(f"math-verify reads nothing in the reference {reference[:60]!r}")
        text = answer_text(completion)
        said = last_box(text)
        if said is None:
            return self._without_box(reference, text)
        if len(said) > MAX_ANSWER_CHARS:
            return Verdict.of(False, f"a boxed answer of {len(said)} characters")
        if not said.strip():
            return Verdict.of(False, "no answer found")
        return Verdict.of(self.equal(reference, said))

    def equal(self, reference: str, answer: str, *, absolute_tolerance: float | None = None) -> bool:
        """Whether two pieces of mathematics are the same, or numbers at most `absolute_tolerance` apart."""
        comparison = _Comparison(Tolerance(self.decimal_places, self.relative_tolerance, absolute_tolerance))
        return any(comparison.statements(gold, said) for gold, said in self._readings(reference, answer))

    def _readings(self, reference: str, answer: str) -> Iterator[tuple[Statement, Statement]]:
        """The ways to read both: letters behind a number are units where the other side has none; "2 and 1/2"."""
        gold, said = (read(text, e_notation=self.e_notation) for text in (reference, answer))
        yield gold, said
        spaced = bool(_SPACED_UNIT.search(gold.text))
        if not (gold_letters := _has_letters(gold)) or spaced:
            units = read(answer, e_notation=self.e_notation, letters=True)
            gold = read(reference, e_notation=self.e_notation, letters=True) if gold_letters else gold
            if units != said or gold_letters:
                yield gold, units
        if "and" in reference + answer:
            for joined in ((True, False), (False, True), (False, False)):
                golds, saids = (
                    read(text, e_notation=self.e_notation, joined=one)
                    for text, one in zip((reference, answer), joined, strict=True)
                )
                yield golds, saids

    def _without_box(self, reference: str, text: str) -> Verdict:
        tail = without_emphasis(plain_characters(text[-MAX_ANSWER_CHARS:]))
        for said in self._stated(tail):
            return Verdict.of(self.equal(reference, said))
        found = parse_prose(tail)
        if not found:
            return Verdict.of(False, "no answer found")
        if parse(str(found[-1])):
            return Verdict.of(self.equal(reference, str(found[-1])))
        gold = parse(", ".join(part.text for part in read(reference, e_notation=self.e_notation).parts))
        tolerance = Tolerance(self.decimal_places, self.relative_tolerance)
        return Verdict.of(bool(gold) and same_parsed(gold, found, tolerance))

    def _stated(self, tail: str) -> Iterator[str]:
        """What follows the last "answer is" or "answer:" on its line, if it is mathematics alone."""
        for found in reversed(list(_STATED.finditer(tail))[-4:]):
            said = re.sub(r"^\\\((.*)\\\)\.?$", r"\1", found["said"].strip())
            parts = read(said, e_notation=self.e_notation).parts
            if said and not any(_PROSE.search(_COMMAND.sub(" ", part.text)) for part in parts):
                yield said
            return

    def wrap_reference(self, reference: str) -> str:
        r"""A completion that must verify: `\boxed{reference}`."""
        box = last_box(reference)
        return f"\\boxed{{{(reference if box is None else box).strip()}}}"

    def warm_up(self) -> None:
        """Pay for the imports before an item's deadline runs."""
        self(r"\boxed{\frac{1}{2}}", "0.5")


def _can_be_read(gold: Statement) -> bool:
    return any(part.text.strip() and (part.dots or parse(part.text)) for part in gold.parts)


def _has_letters(statement: Statement) -> bool:
    values = " ".join(side for part in statement.parts for side in part.sides)
    return bool(re.search("[A-Za-z]", _COMMAND.sub(" ", values)))


@dataclass(frozen=True)
class _Comparison:
    """What is equal, by one tolerance; the reference comes first."""

    tolerance: Tolerance
    depth: int = 0

    def statements(self, gold: Statement, said: Statement) -> bool:
        if gold.text == said.text:
            return True
        if len(gold.parts) == len(said.parts) > 1 or (len(gold.parts) == len(said.parts) and not gold.bracket):
            if gold.bracket != said.bracket:
                return self._coordinates(gold, said)
            if gold.bracket or any(part.dots for part in gold.parts + said.parts):
                return all(self.parts(g, s) for g, s in zip(gold.parts, said.parts, strict=True))
            if self._in_any_order(gold, said):
                return True
        if self._one_in_several_forms(gold, said):
            return True
        return self._as_sets(gold, said)

    def _one_in_several_forms(self, gold: Statement, said: Statement) -> bool:
        r"""`\frac{1}{2} \text{ or } 0.5`."""
        if not len(gold.parts) == 1 < len(said.parts) == len(alternatives(said.text)):
            return False
        return all(self.parts(gold.parts[0], part) for part in said.parts)

    def _coordinates(self, gold: Statement, said: Statement) -> bool:
        """`x = 1, y = 2` for `(1, 2)`: names give the order that a bare list lacks."""
        named, bracketed = (said, gold) if gold.bracket else (gold, said)
        if named.bracket or bracketed.bracket != "()" or not all(part.names for part in named.parts):
            return False
        return all(self.parts(g, s) for g, s in zip(gold.parts, said.parts, strict=True))

    def _in_any_order(self, gold: Statement, said: Statement) -> bool:
        left = list(said.parts)
        for part in gold.parts:
            match = next((other for other in left if self.parts(part, other)), None)
            if match is None:
                return False
            left.remove(match)
        return True

    def _as_sets(self, gold: Statement, said: Statement) -> bool:
        r"""`x < 2 \text{ or } x > 3` and `(-\infty, 2) \cup (3, \infty)`; `\pm 2` and `2, -2`."""
        unions = [alternatives(side.text) for side in (gold, said)]
        if any(len(union) > 1 for union in unions) and all(_RELATION.search(p) for union in unions for p in union):
            return same_solutions(*([_value_text(piece) for piece in union] for union in unions))
        if gold.bracket or said.bracket:
            return self._as_interval(gold, said)
        if len(gold.parts) == len(said.parts):
            return False
        if any(part.dots or self.value(part) is None for part in gold.parts + said.parts):
            return False
        listed = [[str(self.value(part)) for part in side.parts] for side in (gold, said)]
        values = [", ".join(side) for side in listed]
        if any(map(_is_tuple, values)) or any(len(set(side)) < len(side) for side in listed):
            return False
        return same_value(values[0], values[1], self.tolerance)

    def _as_interval(self, gold: Statement, said: Statement) -> bool:
        r"""`3 < x \le 4` and `x \in (3, 4]` for `(3, 4]`; a list without brackets is no tuple."""
        whole = [side.text if side.bracket else self._only_value(side) for side in (gold, said)]
        if whole[0] is None or whole[1] is None or all(side.bracket for side in (gold, said)):
            return False
        return self.values(whole[0], whole[1])

    def _only_value(self, side: Statement) -> str | None:
        return self.value(side.parts[0]) if len(side.parts) == 1 else None

    def parts(self, gold: Part, said: Part) -> bool:
        if gold.dots or said.dots:
            return gold.dots and said.dots
        if gold.note.contradicts(said.note):
            return False
        if gold.note.base or said.note.base:
            numerals = [self.value(part) or "" for part in (gold, said)]
            return all(map(_NUMERAL.fullmatch, numerals)) and _digits(numerals[0]) == _digits(numerals[1])
        if not (gold.is_equation or said.is_equation):
            return self.values(gold.text, said.text)
        wanted, stated = self.value(gold), self.value(said)
        if wanted is not None and stated is not None and not names_differ(gold.names, said.names):
            return self.values(wanted, stated)
        both = [_equation(part) for part in (gold, said)]
        return both[0] is not None and both[1] is not None and same_equation(both[0], both[1])

    def value(self, part: Part) -> str | None:
        """What a part states; None where it is an equation that states no value."""
        first, *others = part.sides
        if not others:
            return first
        approximate = Tolerance(relative=0.01) if r"\approx" in part.text or r"\sime" in part.text else Tolerance()
        return first if all(same_value(first, other, approximate) for other in others) else None

    def values(self, wanted: str, said: str) -> bool:
        """Two values without names and units; tuples and intervals member by member."""
        if self.depth < _MAX_DEPTH and _is_tuple(wanted) and _is_tuple(said):
            inner = _Comparison(self.tolerance, self.depth + 1)
            gold, other = read(wanted), read(said)
            if gold.bracket and other.bracket:
                return inner.statements(gold, other)
        return same_value(wanted, said, self.tolerance)


def _is_tuple(value: str) -> bool:
    return value[:1] in ("(", "[") and value[-1:] in (")", "]") and len(list(split_list(value[1:-1]))) > 1


def _digits(numeral: str) -> str:
    sign, digits = ("-", numeral[1:]) if numeral.startswith("-") else ("", numeral.removeprefix("+"))
    return sign + digits.lstrip("0").casefold()


def _equation(part: Part) -> tuple[str, str] | None:
    sides = part.names + part.sides
    return (sides[0], sides[1]) if len(sides) == 2 else None


def _value_text(piece: str) -> str:
    r"""`x \in (1, 2)` as `(1, 2)`."""
    part = read(piece).parts[0]
    return part.sides[0] if part.names and len(part.sides) == 1 and len(read(piece).parts) == 1 else piece
