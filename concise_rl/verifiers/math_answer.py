"""Mathematical answers, compared by math-verify."""

from __future__ import annotations

import logging
import math
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

_PROBES = (0.7310585786, 1.6180339887)
_EDGE = 1 + 1e-9
"""A tolerance of 0.1 as a float must not decide at its very edge."""

_TEXT = re.compile(r"\\(?:text|textbf|textit|mbox|mathrm|textrm|rm)\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_THOUSANDS = re.compile(r"(?<=\{)[0-9]{1,3}(?:(?:,|\{,\}|,\\!)[0-9]{3})+(?=\})")
"""`20,000` alone in braces, as in `\\frac{20,000}{\\pi}`: math-verify takes it for a number in other places alone."""
_ORDINAL = re.compile(
    r"(?<=[0-9])\^(?:\{(?:st|nd|rd|th)\}|\\(?:text|mathrm)\{(?:st|nd|rd|th)\}|\{\\(?:text|mathrm)\{(?:st|nd|rd|th)\}\})"
)

_INTEGER = re.compile(r"[-+]?[0-9]{1,4000}")  # Python converts no more than 4300 digits
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
    Everything else follows math-verify: `x=5` is 5, sets are unordered, `(1,2)` is ordered, `3 < x <= 4` is `(3, 4]`,
    units are dropped, words ignore case, and where one of the two is a decimal both are rounded to `decimal_places`.

    Attributes:
        decimal_places: so 0.333333 is 1/3, and 0.33 is not.
        relative_tolerance: two numbers are also equal when `|answer - reference| <= relative_tolerance * |reference|`
            (the sciences: 0.01 in the released graders of OCWCourses, the set of arXiv 2206.14858).
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
        text = answer_text(completion)
        box = last_box(text)
        said = self._plain(box) if box is not None and len(box) <= MAX_ANSWER_CHARS else None
        if wanted and said is not None and (same := self._same_text(wanted, said)) is not None:
            return Verdict.of(same)
        gold = _parse_reference(wanted)
        if not gold:
            return Verdict.unscorable(f"math-verify reads nothing in the reference {reference[:60]!r}")
        if box is not None and said is None:
            return Verdict.of(False, f"a boxed answer of {len(box)} characters")
        answer = _parse(self._numbers(text[-MAX_ANSWER_CHARS:]) if said is None else _boxed(said))
        if not answer:
            return Verdict.of(False, "no answer found")
        return Verdict.of(self._equal(gold, answer))

    def equal(self, reference: str, answer: str, *, absolute_tolerance: float | None = None) -> bool:
        """Whether two pieces of mathematics are the same, or numbers at most `absolute_tolerance` apart."""
        wanted, said = self._plain(reference), self._plain(answer)
        if (same := self._same_text(wanted, said)) or (same is False and not absolute_tolerance):
            return same
        gold, parsed = _parse_reference(wanted), _parse(_boxed(said))
        if not gold or not parsed:
            return False
        near = absolute_tolerance is not None and _near(gold, parsed, absolute_tolerance)
        return near or self._equal(gold, parsed)

    def _same_text(self, wanted: str, said: str) -> bool | None:
        """What the texts alone decide, in microseconds: equal ones, and two whole numbers; None for all else."""
        if wanted == said or _words(wanted, said):
            return True
        if self.relative_tolerance or not (_INTEGER.fullmatch(wanted) and _INTEGER.fullmatch(said)):
            return None
        return int(wanted) == int(said)

    def _equal(self, gold: list[Any], answer: list[Any]) -> bool:
        wanted, said = _number(gold), _number(answer)
        if said == math.inf != wanted:
            return False
        if wanted is None or said is None or wanted == math.inf:
            if _refuted(gold[0], answer[0]):
                return False
        elif self.relative_tolerance:
            return abs(said - wanted) <= self.relative_tolerance * abs(wanted) * _EDGE
        elif abs(said - wanted) > max(1e-9 * abs(wanted), 10.0 ** (1 - self.decimal_places)):
            return False
        # What is left is decided by SymPy, which takes up to a second to find that two expressions differ.
        # `3 < x <= 4` answers `(3, 4]` too: by default math-verify allows that in the other direction alone.
        same = _math_verify().verify(
            gold, answer, float_rounding=self.decimal_places, allow_set_relation_comp=True, timeout_seconds=None
        )
        return bool(same)

    def wrap_reference(self, reference: str) -> str:
        r"""A completion that must verify: `\boxed{reference}`."""
        return _boxed(self._plain(reference))

    def _plain(self, answer: str) -> str:
        """Without box, dollars, a final percent sign, and the white space around what is left."""
        box = last_box(answer)
        plain = (answer if box is None else box).replace(r"\$", "").replace("$", "").strip()
        return self._numbers(plain[:-1].removesuffix("\\").rstrip() if plain.endswith("%") else plain)

    def _numbers(self, text: str) -> str:
        text = _ORDINAL.sub("", _BARE_POINT.sub("", text))
        text = _THOUSANDS.sub(lambda found: re.sub("[^0-9]", "", found[0]), text)
        return _E_NOTATION.sub(r"\g<digits> \\times 10^{\g<exponent>}", text) if self.e_notation else text

    def warm_up(self) -> None:
        """Pay for the imports before an item's deadline runs."""
        self(r"\boxed{\frac{1}{2}}", "0.5")


def _words(wanted: str, said: str) -> bool:
    r"""Whether both are the same words, one of them in `\text{}` or the like: math-verify multiplies bare letters."""
    plain = [_TEXT.sub(r"\1", side).strip() for side in (wanted, said)]
    if plain == [wanted, said] or not all(map(_WORDS.fullmatch, plain)):
        return False
    return plain[0].casefold() == plain[1].casefold()


def _near(gold: list[Any], answer: list[Any], tolerance: float) -> bool:
    """Whether both parse results are numbers at most `tolerance` apart."""
    wanted, said = _number(gold), _number(answer)
    return wanted is not None and said is not None and abs(said - wanted) <= tolerance * _EDGE


def _number(parsed: list[Any]) -> float | None:
    """The value of a parse result that is a real number, or `x =` one; percentages are math-verify's affair.

    What is too large for SymPy to write down, of either sign, is infinity.
    """
    from sympy import UnevaluatedExpr

    value = getattr(parsed[0], "rhs", parsed[0])
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
    from sympy import Expr, Float

    if not isinstance(gold, Expr) or not isinstance(answer, Expr):
        return False
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    for base in _PROBES if symbols else ():
        point = {symbol: Float(base + 0.137 * k) for k, symbol in enumerate(symbols)}
        try:
            wanted, said = (complex(side.evalf(subs=point)) for side in (gold, answer))
        except Exception:  # what SymPy cannot evaluate, for whichever of its many reasons, is not refuted
            return False
        if not abs(said - wanted) > 1e-4 * (1 + abs(wanted) + abs(said)):
            return False
    return bool(symbols)


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
