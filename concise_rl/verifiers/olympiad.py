"""OlympiadBench's rules: several answers in any order, each within its tolerance, with or without the unit."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from concise_rl.errors import UserError
from concise_rl.verifiers.answer import answer_text, boxes_from_the_end
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.math_answer import MAX_ANSWER_CHARS, MathAnswer
from concise_rl.verifiers.pool import BatchVerifier
from concise_rl.verifiers.statement import split_list

MAX_ANSWERS = 64
"""An answer with more parts is wrong without being compared: matching costs the product of the two counts."""

_CONJUNCTION = re.compile(r"\\(?:text|mathrm)\s?\{\s{0,4}(?:and|or)\s{0,4}\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")
_MEMBER = re.compile(r"^[^,]{0,40}\\in(?![A-Za-z])")
_SET = re.compile(r"\\(?:left)?\\?\{(.*)\\(?:right\\)?\}", re.DOTALL)


class Gold(NamedTuple):
    """A reference, read: the answers, the unit ("" for none), and an absolute tolerance an answer (None: exact)."""

    answers: list[str]
    unit: str
    tolerances: list[float | None]


@dataclass
class Olympiad(BatchVerifier):
    r"""Each answer of the reference is given once, and no other is (OlympiadBench, arXiv 2402.14008).

    The reference is the JSON object of the data set's columns `final_answer` (a list of texts, of which one may hold
    several answers: `["$69$,$84$"]`), `unit` and `error` (absolute tolerance, one or one an answer: `"1e-1"`,
    `"1e34,1e-3"`), the last two optional; or plain LaTeX.

    The answer is the last `\boxed{}`, split at the commas, semicolons, "and" and "or" that lie in no bracket, `\pm`
    making two. Where it holds fewer parts than the reference, the boxes before it are read along. The parts are matched
    with the reference's in any order, each once, by `MathAnswer`; with a tolerance, numbers may differ by that much.
    `(1,2)` is ordered, brackets of intervals count, `x=5` is 5. The unit may follow the answer or not. Without a box,
    the whole reference is compared with what math-verify finds at the end.

    Where the released judge differs: it also takes a hundredth and a hundredfold of every number; here only what is
    written with `%`, on one side alone, may be read as its hundredth too. It joins all boxes of the completion,
    intermediate ones included.

    Attributes:
        decimal_places: two numbers of which one is a decimal are rounded to so many; 8 is the data set's tolerance of
            1e-8 where it names none.

    A reference that is empty, or JSON without a `final_answer`, is unscorable. Called directly this has no deadline,
    see `MathAnswer`.
    """

    decimal_places: int = 8
    hostile_input_safe: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.decimal_places < 0:
            raise UserError(f"Olympiad.decimal_places={self.decimal_places} must be at least 0")
        self._exact = MathAnswer(decimal_places=self.decimal_places)

    def __call__(self, completion: str, reference: str) -> Verdict:
        gold = read_gold(reference)
        if gold is None:
            return Verdict.unscorable(f"the reference {reference[:60]!r} holds no answer that can be read")
        text = answer_text(completion)
        boxes = list(islice(boxes_from_the_end(text), max(1, len(gold.answers))))
        if not boxes:
            return self._exact(text, ", ".join(gold.answers))
        if len(boxes[0]) > MAX_ANSWER_CHARS:
            return Verdict.of(False, f"a boxed answer of {len(boxes[0])} characters")
        if _squeezed(boxes[0]) == _squeezed(", ".join(gold.answers)):
            return Verdict.of(True)
        said = _said(boxes, len(gold.answers))
        if len(said) != len(gold.answers):
            return Verdict.of(False, f"{len(said)} answers where {len(gold.answers)} are asked for")
        for wanted, tolerance in zip(gold.answers, gold.tolerances, strict=True):
            match = next((part for part in said if self._same(wanted, part, gold.unit, tolerance)), None)
            if match is None:
                return Verdict.of(False, f"no answer is {wanted[:60]}")
            said.remove(match)
        return Verdict.of(True)

    def _same(self, wanted: str, said: str, unit: str, tolerance: float | None) -> bool:
        bare = _without_unit(said, unit)
        readings = [(wanted, bare)]
        if wanted.endswith("%") != bare.endswith("%") and unit != "%":
            readings.append((_hundredth(wanted), _hundredth(bare)))
        return any(self._exact.equal(*reading, absolute_tolerance=tolerance) for reading in readings)

    def wrap_reference(self, reference: str) -> str:
        r"""A completion that must verify: `\boxed{all the answers}`."""
        gold = read_gold(reference)
        return f"\\boxed{{{', '.join(gold.answers)}}}" if gold else reference

    def warm_up(self) -> None:
        """Pay for the imports before an item's deadline runs."""
        self._exact.warm_up()


def read_gold(reference: str) -> Gold | None:
    """The answers, unit and tolerances of a reference; None where there is no answer or a tolerance is no number."""
    fields = _fields(reference)
    answers = fields.get("final_answer")
    texts = [answers] if isinstance(answers, str) else answers if isinstance(answers, list) else []
    parts = [part for text in texts for part in _parts(str(text))]
    try:
        errors: list[float | None] = [
            float(error) for error in str(fields.get("error") or "").split(",") if error.strip()
        ]
    except ValueError:
        return None
    if not errors:
        errors = [None]
    if not parts or len(errors) not in (1, len(parts)):
        return None
    return Gold(parts, str(fields.get("unit") or "").replace("$", "").strip(), errors * (len(parts) // len(errors)))


def _fields(reference: str) -> dict[str, Any]:
    try:
        fields = json.loads(reference)
    except (ValueError, RecursionError):
        fields = None
    return fields if isinstance(fields, dict) else {"final_answer": reference}


def _said(boxes: list[str], wanted: int) -> list[str]:
    """The parts of the last box, and of those before it as long as they are fewer than wanted."""
    if wanted == 1:
        return [boxes[0]]  # a comma may belong to a number, 1,234: MathAnswer knows
    said: list[str] = []
    for box in boxes:
        if len(said) >= wanted:
            break
        said = [*_parts(box[:MAX_ANSWER_CHARS]), *said]
    return said[: MAX_ANSWERS + 1]


def _parts(text: str) -> list[str]:
    """The answers that a text lists, without dollars and the full stop at the end; `\\pm` is two."""
    text = _MEMBER.sub("", text.replace("\\$", "").replace("$", "").strip().removesuffix(".").strip()).strip()
    if (inner := _SET.fullmatch(text)) and "\\}" not in inner[1]:
        text = inner[1]
    parts = [part.strip() for part in split_list(_CONJUNCTION.sub(",", text))]
    return [sign for part in parts if part for sign in _signs(part)]


def _signs(part: str) -> list[str]:
    if r"\pm" not in part:
        return [part]
    return [part.replace(r"\pm", plus).replace(r"\mp", minus) for plus, minus in ("+-", "-+")]


def _without_unit(said: str, unit: str) -> str:
    said = said.replace("\\$", "").replace("$", "").strip()
    if unit and said.endswith(unit):
        said = said[: -len(unit)].rstrip(" \\,~") or said
    return said


def _hundredth(text: str) -> str:
    """`8 \\%` as a number; a text without the sign as it is."""
    return f"({text[:-1].rstrip().removesuffix(chr(92))})/100" if text.endswith("%") else text


def _squeezed(text: str) -> str:
    return "".join(text.replace("\\$", "").replace("$", "").split())
