r"""A mathematical answer, taken apart as text: its list, its names, the sides of its equations, its units.

x = 5 \text{ cm}             names (x,), value 5, unit cm
42 = 6 \times 7              no name, sides 42 and 6 \times 7: a value if they are equal
3x + y = 10                  no name, two sides that differ: an equation, and no value
1, 2 \text{ and } 3          three parts
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from concise_rl.verifiers.answer import braced, last_box
from concise_rl.verifiers.notation import (
    mixed_numbers,
    plain_characters,
    repeating_decimals,
    without_emphasis,
    without_separators,
)
from concise_rl.verifiers.units import Note, split_note

MAX_PARTS = 64
"""A longer list is compared as one text: matching costs the product of the two lengths."""


@dataclass(frozen=True)
class Part:
    """One member of the list that an answer is.

    Attributes:
        text: all of it, without its note.
        names: what it says that it is: `x`, `AB`, `\\text{Area}`, `f(x)`.
        sides: what is left of an equation or a chain of them; one where it only states a value.
        note: unit, base and the like.
        dots: `\\ldots`, which stands for terms that are not written.
    """

    text: str
    names: tuple[str, ...]
    sides: tuple[str, ...]
    note: Note
    dots: bool = False

    @property
    def is_equation(self) -> bool:
        """Whether an equals sign stands in it."""
        return len(self.names) + len(self.sides) > 1


@dataclass(frozen=True)
class Statement:
    """An answer, read.

    Attributes:
        text: in plain spelling, notes included.
        parts: its members, in order; one where it is no list.
        bracket: the brackets around the list: "()", "[]", "(]", "[)", or "" for a list without order.
    """

    text: str
    parts: tuple[Part, ...]
    bracket: str = ""


_STYLES = re.compile(
    r"\\(text|textbf|textit|textrm|textsc|textnormal|mbox|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|rm|bf)\s?\{"
)
_MATHEMATICAL = re.compile(r"\s*[-+]?\s*[0-9.(\[\\|][0-9\s.,:;+\-*/^_=(){}\[\]|!%\\$]*")
_WORD_RUN = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?:[ .'-]+[A-Za-z]+)*\.?")
_ROW_SPACE = re.compile(r"\\\\\s?\[\s?-?[0-9.]{1,8}\s?(?:pt|em|ex|mm|cm|in|mu)\s?\]")
_TIGHT_COMMA = re.compile(r",\s?\\!\s?(?=[0-9]{3}(?![0-9]))")
_EMPTY = re.compile(r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}")
_JOINING = re.compile(r"(.*\S)\s+(and|or)\s*")
_SIZES = re.compile(
    r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|biggl?|biggr|middle)(?=[\s()\[\]|{}\\./])\s?|\\displaystyle|\\!"
)
_ORDINAL = re.compile(
    r"(?<=[0-9])\^(?:\{(?:st|nd|rd|th)\}|\\(?:text|mathrm)\{(?:st|nd|rd|th)\}|\{\\(?:text|mathrm)\{(?:st|nd|rd|th)\}\})"
)
_BARE_POINT = re.compile(r"(?<=[0-9])\.(?=\s*/)")
_E_NOTATION = re.compile(
    r"(?<![A-Za-z0-9_\\])(?P<digits>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"[eE](?P<exponent>[-+]?[0-9]{1,3})(?![A-Za-z0-9_]|\.[0-9])"
)
_COMMA_IN_BRACES = re.compile(r"(?<=\{)[0-9]{1,3}(?:,[0-9]{3})+(?=\})")
_AND = r"(?:\\(?:text|mathrm|mbox)\s?\{\s{0,4}%s\s{0,4}\}|(?<![A-Za-z\\])%s(?![A-Za-z])|\\%s(?![A-Za-z]))"
_CONJUNCTION = re.compile(_AND % ("and", "and", "land") + "|" + _AND % ("or", "or", "lor") + "|;")
_OR = re.compile(_AND % ("or", "or", "lor"))
_DOTS = re.compile(r"\\[lc]?dots[bc]?|\.\.\.")
_BUILDER = re.compile(  # the numbers that a condition describes
    r"\\\{\s?[A-Za-z]\s?(?:\\in\s?\\mathbb\s?\{?R\}?\s?)?(?:\\mid|\||:)\s?([^{}]*(?:[<>]|\\[lg]e)[^{}]*)\\\}"
)
_SET = re.compile(r"\\\{(.*)\\\}", re.DOTALL)
_EQUALS = re.compile(r"(?<![\\<>!=~]):?=(?!=)|\\(?:in|approx|simeq|doteq|coloneqq)(?![A-Za-z])")

_GREEK = (
    r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|upsilon|"
    r"(?:var)?phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell|hbar)(?![A-Za-z])"
)
_LETTER = (
    rf"(?:[A-Za-z]|{_GREEK}|\\(?:vec|hat|bar|tilde|dot|ddot|mathbf|mathcal|mathbb|boldsymbol)\s?\{{\s?[A-Za-z]\s?\}})"
)
_INDEX = r"(?:\s?_\s?(?:\{[^{}]{0,40}(?:\{[^{}]{0,40}\}[^{}]{0,40})?\}|[A-Za-z0-9]))"
_MARKS = r"(?:'{1,3}|\^\s?\{\s?(?:\\prime|\*|-1)\s?\}|\^\*)"
_ARGUMENTS = r"(?:\s?\([^()=]{0,60}(?:\([^()=]{0,20}\)[^()=]{0,20})?\))"
_LINE = r"(?:[A-Z](?:_\{?[0-9]\}?|'){0,2}\s?){2,5}"
_NAME = re.compile(
    rf"(?:\\text\s?\{{[^{{}}]*\}}|\\operatorname\s?\{{[^{{}}]*\}}|\\(?:max|min|det|dim|deg|sup|inf)(?![A-Za-z]))"
    rf"{_INDEX}?{_ARGUMENTS}?(?:\s?{_LETTER}{_INDEX}?)?"
    rf"|{_LETTER}{_MARKS}?{_INDEX}?{_MARKS}?{_ARGUMENTS}?"
    rf"|\(\s?{_LETTER}{_INDEX}?(?:\s?,\s?{_LETTER}{_INDEX}?){{1,5}}\s?\)"
    rf"|(?:\\(?:overline|overrightarrow|widehat|vec|triangle|square)\s?)?\{{?\s?{_LINE}\}}?|\|\s?{_LINE}\|"
    rf"|\[\s?{_LINE}\]"
    rf"|(?:m\s?)?\\(?:angle|measuredangle)\s?\{{?\s?(?:{_LINE}|{_LETTER}{_INDEX}?)\s?\}}?"
    r"|[A-Z][a-z]{2,}(?: [A-Za-z]{2,}){0,5}|(?=[a-z]{4})[a-z]*[eiou][a-z]*(?: [a-z]{2,}){0,5}"
)
_SINGLE = re.compile(rf"({_LETTER})({_INDEX}?)")


@lru_cache(maxsize=4096)
def read(answer: str, *, e_notation: bool = False, letters: bool = False, joined: bool = True) -> Statement:
    r"""Take an answer apart.

    Args:
        answer: LaTeX or plain, with or without a box or dollar signs.
        e_notation: `4.5e33` is a number.
        letters: a letter behind a number is a unit, see `split_note`.
        joined: `2 \text{ and } \frac{1}{2}` is one number, not two.
    """
    text = in_plain_spelling(answer)
    if builder := _BUILDER.fullmatch(text):
        text = builder[1]
    text = numbers(text, e_notation=e_notation, joined=joined)
    inner, bracket = _without_brackets(text)
    pieces = [piece.strip() for piece in split_list(_CONJUNCTION.sub(",", inner)) if piece.strip()]
    if not 0 < len(pieces) <= MAX_PARTS:
        return Statement(text, (Part(text, (), (text,), Note()),))
    return Statement(text, tuple(_part(piece, letters) for piece in pieces), bracket if len(pieces) > 1 else "")


def in_plain_spelling(answer: str) -> str:
    r"""Without box, dollars, emphasis, fonts around mathematics, and what sets sizes and spaces."""
    box = last_box(answer)
    text = without_emphasis(plain_characters(answer if box is None else box))
    text = _TIGHT_COMMA.sub("{,}", text)
    text = _SIZES.sub("", _ROW_SPACE.sub(r"\\\\ ", text))
    text = _EMPTY.sub(r"\\emptyset ", text)
    unescaped = text.replace(r"\$", "").count("$")
    if unescaped == 1 and re.match(r"\s*[-+]?\s?\$\s?[0-9.]", text):
        text = text.replace("$", r"\$", 1)
    else:
        text = re.sub(r"(?<!\\)\$", "", text)
    return _without_styles(text).strip()


def _without_styles(text: str) -> str:
    r"""`\text{13}` is 13 and `\text{15 cm}` is `15\text{ cm}`; `\text{Area}` and `\mathbf{v}` stay."""
    made, at = [], 0
    for style in _STYLES.finditer(text):
        inner = braced(text, style.end()) if style.start() >= at else None
        if inner is None:
            continue
        made.append(text[at : style.start()])
        at = style.end() + len(inner) + 1
        joining = _JOINING.fullmatch(inner)
        made.append(_restyled(style[1], joining[1] if joining else inner, behind_value=made[-1]))
        made.append(f" \\text{{ {joining[2]} }}" if joining else "")
    return "".join(made) + text[at:] if made else text


def _restyled(style: str, inner: str, behind_value: str) -> str:
    if not re.search("[A-Za-z]", inner):
        return inner
    if re.search(r"[0-9A-Za-z)}\]]\s*$", behind_value):  # a unit or a remark follows a value; its digits are its own
        return f"\\text{{{inner}}}"
    if _MATHEMATICAL.fullmatch(inner):
        return f" {inner} "
    if re.search("[0-9]", inner) and (style.startswith("text") or style == "mbox"):
        return " " + _WORD_RUN.sub(lambda words: f"\\text{{ {words[0]} }}", inner) + " "
    if "\\" in inner and (style in ("boldsymbol", "bm", "mathbf", "mathrm", "bf", "rm") or re.search("[0-9]", inner)):
        return f"{{{inner}}}"
    return f"\\text{{{inner}}}" if len(inner.strip()) != 1 or style.startswith("text") else f"\\{style}{{{inner}}}"


def numbers(text: str, *, e_notation: bool = False, joined: bool = True) -> str:
    """With numbers in the one spelling that the parser takes."""
    text = _ORDINAL.sub("", _BARE_POINT.sub("", text))
    text = _COMMA_IN_BRACES.sub(lambda found: found[0].replace(",", ""), text)
    text = without_separators(text, commas=not any(bracket in text for bracket in "([") and r"\{" not in text)
    text = mixed_numbers(repeating_decimals(text), joined=joined)
    return _E_NOTATION.sub(r"\g<digits> \\times 10^{\g<exponent>}", text) if e_notation else text


def _without_brackets(text: str) -> tuple[str, str]:
    """The list inside the brackets that hold all of a text, and the brackets; `\\{` and `\\}` make no order."""
    found = _SET.fullmatch(text)
    if found and r"\}" not in found[1]:
        return found[1], ""
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and len(list(split_list(text[1:-1]))) > 1:
        depth = 0
        for at, character in enumerate(text):
            depth += (character in "([{") - (character in ")]}")
            if depth == 0 and at < len(text) - 1:
                return text, ""
        return text[1:-1], text[0] + text[-1]
    return text, ""


def split_list(text: str) -> Iterator[str]:
    r"""The pieces between the commas that lie in no bracket."""
    depth = start = 0
    for at, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth <= 0 and text[at - 1 : at] != "\\":  # `\,` is a space
            yield text[start:at]
            start = at + 1
    yield text[start:]


def alternatives(text: str) -> list[str]:
    """The pieces between the words "or"."""
    return [piece.strip() for piece in _OR.split(text) if piece.strip()]


def _part(piece: str, letters: bool) -> Part:
    if _DOTS.fullmatch(piece):
        return Part(piece, (), (piece,), Note(), dots=True)
    text, note = split_note(piece, letters=letters)
    sides = [side.strip() for side in _sides(text)]
    if len(sides) > 1:
        values = [split_note(side, letters=letters) for side in sides]
        sides = [value.replace(r"\$", "") for value, _ in values]
        note = next((said for _, said in [(text, note), *values] if said != Note()), note)
    text = text.replace(r"\$", "")
    names, rest = _named(sides if len(sides) > 1 else [text])
    return Part(text, names, rest, note)


def _sides(text: str) -> Iterator[str]:
    start = 0
    for found in _EQUALS.finditer(text):
        before = text[: found.start()]
        if all(before.count(a) == before.count(b) for a, b in ("()", "{}")):
            yield text[start : found.start()]
            start = found.end()
    yield text[start:]


def _named(sides: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The plain names among the sides, and the sides that are left, one at least."""
    if len(sides) == 2 and all(is_name(side) and "\\text" not in side for side in sides):
        return (), tuple(sides)  # `a = b` says that two unknowns are equal, not what one is
    names, rest = [], list(sides)
    while len(rest) > 1 and is_name(rest[0]):
        names.append(rest.pop(0))
    if len(rest) > 1 and not names and is_name(rest[-1]):
        names.append(rest.pop())
    return tuple(names), tuple(rest)


def is_name(side: str) -> bool:
    r"""Whether a side of an equation only names what the other is: `x`, `AB`, `\text{Area}`, `f(x)`, `\angle ABC`."""
    return len(side) <= 120 and bool(_NAME.fullmatch(side.strip()))


def names_differ(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether both give names of one kind, and no name is common: x and y, AB and CD, x_1 and x_2."""
    if not one or not other:
        return False
    kinds = [{_kind(name) for name in side} for side in (one, other)]
    if kinds[0] & kinds[1]:
        return False
    return bool({kind for kind, _ in kinds[0] if kind} & {kind for kind, _ in kinds[1]})


def _kind(name: str) -> tuple[str, str]:
    squeezed = re.sub(r"[\s{}|\[\]]|\\overline|\\vec", "", name)
    if _SINGLE.fullmatch(name.strip()):
        return "variable", squeezed
    if re.fullmatch(r"[A-Z]{2}", squeezed):
        return "line", "".join(sorted(squeezed))
    return "", squeezed
