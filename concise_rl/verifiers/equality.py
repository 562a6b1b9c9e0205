"""Whether two pieces of mathematics are equal, by math-verify and SymPy: numbers, expressions, sets, equations."""

from __future__ import annotations

import logging
import math
import re
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

_PROBES = (0.7310585786, 1.6180339887)
_EQUATION_PROBES = (0.7310585786, 1.6180339887, 0.4142135624, 2.2360679775)
_EDGE = 1 + 1e-9
"""A tolerance of 0.1 as a float must not decide at its very edge."""

_SIGNIFICANT = 1e-4
"""Two numbers of which one is a decimal differ by no more than this share, however small they are."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,4000}")  # Python converts no more than 4300 digits
_ARITHMETIC = re.compile(r"[-+*/^().,\s0-9%]+")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mbox|mathrm|textrm|mathbf|rm)\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' ,-]*")
_NO_UNKNOWN = re.compile(r"\\(?:text|textbf|textit|mbox|mathrm|textrm|operatorname)\s?\{[^{}]*\}|\\[A-Za-z]+")
_SOUND = re.compile(r"\s|\\[,;:! ]|\\q?quad(?![A-Za-z])|~")


class Tolerance(NamedTuple):
    """How far two numbers may be apart.

    Attributes:
        decimal_places: where one of two numbers is a decimal, both are rounded to so many.
        relative: share of the reference.
        absolute: distance; None for none.
    """

    decimal_places: int = 6
    relative: float = 0.0
    absolute: float | None = None


def same_value(wanted: str, said: str, tolerance: Tolerance) -> bool:
    """Whether two values, LaTeX without units and names, are equal."""
    if (same := _same_text(wanted, said)) or (same is False and not (tolerance.relative or tolerance.absolute)):
        return same
    gold, answer = parse(wanted), parse(said)
    if not gold or not answer:
        return False
    return same_parsed(gold, answer, tolerance) and not _other_case(wanted, said)


def _other_case(wanted: str, said: str) -> bool:
    """Whether an unknown of one is a capital in the other: math-verify takes `N/2` for `n/2`. A letter alone may be a
    choice, and is the same."""
    one, other = (set(re.findall("[A-Za-z]", _NO_UNKNOWN.sub(" ", text))) for text in (wanted, said))
    if len(wanted.strip()) == 1 or len(said.strip()) == 1:
        return False
    return any(letter not in other and letter.swapcase() in other - one for letter in one)


def _same_text(wanted: str, said: str) -> bool | None:
    """What the texts alone decide, in microseconds: equal ones, and two whole numbers; None for all else."""
    if wanted == said or _SOUND.sub("", wanted) == _SOUND.sub("", said) or _same_words(wanted, said):
        return True
    if not (_INTEGER.fullmatch(wanted) and _INTEGER.fullmatch(said)):
        return None
    return int(wanted) == int(said)


def _same_words(wanted: str, said: str) -> bool:
    r"""Whether both are the same words, one of them in `\text{}` or the like: math-verify multiplies bare letters."""
    plain = [" ".join(_TEXT.sub(r"\1", side).strip(" ().").split()) for side in (wanted, said)]
    if [wanted, said] == plain or not all(map(_WORDS.fullmatch, plain)):
        return False
    return plain[0].casefold() == plain[1].casefold()


def same_parsed(gold: list[Any], answer: list[Any], tolerance: Tolerance) -> bool:
    """The same of two results of `parse`."""
    if isinstance(gold[0], str) or isinstance(answer[0], str):
        return bool(_SOUND.sub("", str(gold[-1])) == _SOUND.sub("", str(answer[-1])))
    if _undefined(gold[0]) or _undefined(answer[0]):
        return False
    wanted, said = _number(gold[0]), _number(answer[0])
    if said == math.inf != wanted:
        return False
    if wanted is None or said is None or wanted == math.inf:
        if _refuted(gold[0], answer[0]):
            return False
    elif tolerance.absolute is not None and abs(said - wanted) <= tolerance.absolute * _EDGE:
        return True
    elif tolerance.relative:
        return abs(said - wanted) <= tolerance.relative * abs(wanted) * _EDGE
    elif not _near(gold[0], answer[0], wanted, said, tolerance.decimal_places):
        return False
    return _verified(gold, answer, tolerance.decimal_places)


def _undefined(value: Any) -> bool:
    """Whether something was divided by 0, which equals nothing but its own text."""
    from sympy import Basic, nan, zoo

    return isinstance(value, Basic) and value.has(nan, zoo)


def _near(gold: Any, answer: Any, wanted: float, said: float, decimal_places: int) -> bool:
    from sympy import Float

    apart, size = abs(said - wanted), max(abs(said), abs(wanted))
    if not (gold.has(Float) or answer.has(Float)):
        return apart <= 1e-9 * size
    return apart <= min(_SIGNIFICANT * size, max(1e-9 * size, 10.0 ** (1 - decimal_places)))


def _verified(gold: list[Any], answer: list[Any], decimal_places: int) -> bool:
    # SymPy takes up to a second to find that two expressions differ.
    # `3 < x <= 4` answers `(3, 4]` too: by default math-verify allows that in the other direction alone.
    same = _math_verify().verify(
        gold, answer, float_rounding=decimal_places, allow_set_relation_comp=True, timeout_seconds=None
    )
    return bool(same)


def _number(value: Any) -> float | None:
    """The value of an expression that is a real number; percentages are math-verify's affair.

    What is too large for SymPy to write down, of either sign, is infinity.
    """
    from sympy import UnevaluatedExpr

    try:
        if not getattr(value, "is_number", False) or value.is_real is False or value.has(UnevaluatedExpr):
            return None
        return float(value.evalf())
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _refuted(gold: Any, answer: Any) -> bool:
    """Two expressions, one with symbols at least, that differ at two points.

    The points are positive, where no branch of a root or a logarithm divides two forms of one expression.
    """
    from sympy import Expr

    if not isinstance(gold, Expr) or not isinstance(answer, Expr):
        return False
    gold, answer = _of_symbols(gold), _of_symbols(answer)
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    for base in _PROBES if symbols else ():
        try:
            wanted, said = (_at(side, base) for side in (gold, answer))
        except Exception:  # what SymPy cannot evaluate, for whichever of its many reasons, is not refuted
            return False
        if not abs(said - wanted) > 1e-4 * (1 + abs(wanted) + abs(said)):
            return False
    return bool(symbols)


def _at(expression: Any, base: float) -> complex:
    """The value where each symbol is a number of its own, which its name gives: two forms have the same unknowns."""
    from sympy import Float

    point = {symbol: Float(base + crc32(str(symbol).encode()) / 2**33) for symbol in expression.free_symbols}
    return complex(expression.evalf(subs=point))


def same_equation(wanted: tuple[str, str], said: tuple[str, str]) -> bool:
    """Whether two equations, left and right side each, have the same unknowns and solutions.

    They have where (left - right) of one is a constant, not 0, times that of the other. It is evaluated at four points,
    which costs milliseconds; SymPy's `solve` may take seconds. So `xy = 2` and `y = 2/x` differ.
    """
    if wanted == said:
        return True
    if _other_case("=".join(wanted), "=".join(said)):
        return False
    one, other = _difference(*wanted), _difference(*said)
    if one is None or other is None:
        return False
    names = [{str(symbol) for symbol in side.free_symbols} for side in (one, other)]
    if not names[0] or names[0] != names[1]:
        return False
    ratios: list[complex] = []
    try:
        for base in _EQUATION_PROBES:
            ratios.append(_at(one, base) / _at(other, base))
    except Exception:  # not a number there, or 0: nothing is shown
        return False
    first = ratios[0]
    if not 1e-12 < abs(first) < 1e12:
        return False
    return all(abs(ratio - first) <= 1e-9 * abs(first) for ratio in ratios)


def _difference(left: str, right: str) -> Any:
    """Left minus right, functions and derivatives of unknowns as unknowns of their own; None if a side is no number."""
    from sympy import Expr

    sides = [(parse(side) or [None])[0] for side in (left, right)]
    if not all(isinstance(side, Expr) for side in sides):
        return None
    return _of_symbols(sides[0]) - _of_symbols(sides[1])


def _of_symbols(expression: Any) -> Any:
    """With symbols in place of derivatives and of functions that are not known, so that it can be evaluated."""
    from sympy import Derivative, Symbol
    from sympy.core.function import AppliedUndef

    if not expression.has(AppliedUndef, Derivative):
        return expression
    return expression.replace(lambda e: isinstance(e, AppliedUndef | Derivative), lambda e: Symbol(str(e)))


def same_solutions(wanted: list[str], said: list[str]) -> bool:
    """Whether two unions, of inequalities, intervals and sets, hold the same numbers."""
    one, other = _union(tuple(wanted)), _union(tuple(said))
    if one is None or other is None:
        return False
    return bool(_math_verify().verify([one], [other], timeout_seconds=None))


@lru_cache(maxsize=256)
def _union(pieces: tuple[str, ...]) -> Any:
    from sympy import Set, Union

    sets = [_solutions(piece) for piece in pieces[:16]]
    return Union(*sets) if sets and all(isinstance(one, Set) for one in sets) else None


def _solutions(piece: str) -> Any:
    found = (parse(piece) or [None])[0]
    try:
        return found.as_set() if hasattr(found, "as_set") else found
    except Exception:  # SymPy refuses what has two unknowns, and more
        return None


@lru_cache(maxsize=1024)
def parse(value: str) -> list[Any]:
    """What math-verify reads: a SymPy object, if it can, and the text. Nothing of a text that it can read in part."""
    if not value.strip():
        return []
    library = _math_verify()
    from latex2sympy2_extended.math_normalization import NormalizationConfig

    # Units were taken off before; math-verify's own list takes `2s` for 2.
    plain = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    config = library.LatexExtractionConfig(boxed_match_priority=0, normalization_config=plain)
    found = library.parse(f"\\boxed{{{value}}}", [config], parsing_timeout=None)
    if (not found or isinstance(found[0], str)) and _ARITHMETIC.fullmatch(value):
        found = library.parse(value, [library.ExprExtractionConfig()], parsing_timeout=None) or found
    return list(found)


def parse_prose(text: str) -> list[Any]:
    """What math-verify finds in a text without a box: behind "the answer is", else the last formula or number."""
    library = _math_verify()
    targets = [library.LatexExtractionConfig(boxed_match_priority=0), library.ExprExtractionConfig()]
    return list(library.parse(text, targets, parsing_timeout=None))


@lru_cache(maxsize=1)
def _math_verify() -> Any:
    import math_verify

    # It warns that its own timeouts, which need signals and the main thread, are off: the pool has the deadline.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify
