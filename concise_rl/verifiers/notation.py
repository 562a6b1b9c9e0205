r"""One spelling for each character and number: full-width digits, Markdown emphasis, mixed numbers, separators.

Everything here is linear in the length of the text, so that verifiers that are `hostile_input_safe` may use it.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_SYMBOLS = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63", "-"),
    **dict.fromkeys("\u22c5\u2219\u00b7", r"\cdot "),
    **dict.fromkeys("\u00b0\u00ba", r"^{\circ}"),
    "\u00d7": r"\times ",
    "\u00f7": r"\div ",
    "\u03c0": r"\pi ",
    "\u221e": r"\infty ",
    "\u221a": r"\sqrt ",
    "\u2264": r"\le ",
    "\u2265": r"\ge ",
    "\u2260": r"\ne ",
    "\u2248": r"\approx ",
    "\u00b1": r"\pm ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2205": r"\emptyset ",
    "\u2208": r"\in ",
    "\u2220": r"\angle ",
    "\u2026": r"\ldots ",
    "\u3001": ",",
    "\u3002": ".",
    "\u2044": "/",
}


class _Characters(dict[int, str]):
    """A table for `str.translate` that works out each character when it first comes."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = chr(code) if code < 128 else _plain_character(chr(code))
        return plain


def _plain_character(character: str) -> str:
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    category = unicodedata.category(character)
    if category in ("Zs", "Cf"):
        return " " if category == "Zs" else ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    compatible = unicodedata.normalize("NFKC", character)
    if "\u2044" in compatible:
        above, _, below = compatible.partition("\u2044")
        return rf" \frac{{{above}}}{{{below}}}" if below else character
    return compatible if len(compatible) == 1 and compatible.isascii() else character


_CHARACTERS = _Characters()
_SUPERSCRIPT_DIGITS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b", "0123456789+-"
)
_SUPERSCRIPTS = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")
_SUBSCRIPTS = re.compile("[\u2080-\u2089]+")
_ROOT = re.compile(r"\u221a\s?([0-9]{1,40}(?:\.[0-9]{1,40})?|[A-Za-z])")

_EMPHASIS = (
    re.compile(r"(?<![\w*\\])(\*{1,3})(?=[^\s*])([^*\n]{1,400})(?<![\s\\])\1(?![\w*])"),
    re.compile(r"(?<![\w\\}])(_{1,3})(?=[^\s_{])([^_\n]{1,400})(?<![\s\\])\1(?![\w{])"),
    re.compile(r"<(b|i|u|em|strong|code|mark)>([^<>]{1,400})</\1>"),
    re.compile(r"(?<![=\w])(==)(?=[^\s=])([^=\n]{1,100})(?<!\s)==(?![=\w])"),
)


def plain_characters(text: str) -> str:
    r"""ASCII for what is written in other characters: `５` is 5, `½` is `\frac{1}{2}`, `m²` is `m^{2}`, a thin space is
    a space. Letters of other scripts stay."""
    if text.isascii():
        return text
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = _SUPERSCRIPTS.sub(lambda run: f"^{{{run[0].translate(_SUPERSCRIPT_DIGITS)}}}", text)
    text = _SUBSCRIPTS.sub(lambda run: f"_{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    return text.translate(_CHARACTERS)


def without_emphasis(text: str) -> str:
    """Without Markdown's stars, underscores, backticks and highlights, and HTML's bold and the like; what they enclose
    stays. A star or underscore beside a letter or digit is an operator or an index."""
    text = text.replace("`", "")
    for _ in range(3):
        before = text
        for pattern in _EMPHASIS:
            text = pattern.sub(r"\2", text)
        if text == before:
            break
    return text


_GAP = r"(?:[ \t]|\\[,;:! ]|~|\{\})"
_THOUSANDS = re.compile(
    rf"(?<![0-9.,A-Za-z_])(?<![0-9]\s)[1-9][0-9]{{0,2}}(?:(?:\{{,\}}|,\\[!,]|{_GAP}{{1,2}})[0-9]{{3}}(?![0-9]))+"
)
_COMMAS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:(?:,|\{,\}|,\\[!,])[0-9]{3})+(?![0-9]|,[0-9])")
_DIGITS_ONLY = re.compile(r"[^0-9]")


def without_separators(text: str, *, commas: bool) -> str:
    r"""Numbers without what parts their thousands: `9 500`, `9\,500`, `9{,}500`, and with `commas` also `9,500`."""
    text = _THOUSANDS.sub(lambda found: _DIGITS_ONLY.sub("", found[0]), text)
    return _COMMAS.sub(lambda found: _DIGITS_ONLY.sub("", found[0]), text) if commas else text


_INT = r"[0-9]{1,40}"
_SHORT_FRACTION = re.compile(
    r"\\[dtc]?frac\s?(?:\{\s?([0-9]{1,40})\s?\}|([0-9]))\s?(?:\{\s?([0-9]{1,40})\s?\}|([0-9]))"
)
_MIXED = re.compile(
    rf"(?<![0-9A-Za-z_^.,/)}}\\])(?<![_^]\{{)({_INT})"
    rf"(?P<gap>{_GAP}{{0,3}}(?:(?:\\text\s?\{{\s?)?(?:and|&)(?:\s?\}})?{_GAP}{{0,3}})?)"
    rf"(?:\\[dtc]?frac\s?\{{\s?(?P<above>{_INT})\s?\}}\s?\{{\s?(?P<below>{_INT})\s?\}}"
    rf"|(?<=[\s}}~,;:!])(?P<a>{_INT})/(?P<b>{_INT}))(?![0-9A-Za-z.(^_])"
)


def whole_fractions(text: str) -> str:
    r"""`\frac52`, `\dfrac{5}2` and the like as `\frac{5}{2}`, where both are whole numbers."""
    return _SHORT_FRACTION.sub(lambda f: rf"\frac{{{f[1] or f[2]}}}{{{f[3] or f[4]}}}", text)


def mixed_numbers(text: str, *, joined: bool = True) -> str:
    r"""`2 1/2`, `2\frac{1}{2}` and, if `joined`, `2 and 1/2` as `\frac{5}{2}`; a fraction of 1 or more is no part of
    one."""

    def improper(found: re.Match[str]) -> str:
        whole, above, below = int(found[1]), int(found["above"] or found["a"]), int(found["below"] or found["b"])
        if not 0 < above < below or ("and" in found["gap"] and not joined):
            return found[0]
        return rf"\frac{{{whole * below + above}}}{{{below}}}"

    return _MIXED.sub(improper, whole_fractions(text))


_REPEATING = re.compile(
    r"(?<![0-9A-Za-z_.])(?P<whole>[0-9]{0,40})\.(?P<fixed>[0-9]{0,40})"
    r"(?:\\(?:overline|bar|dot)\s?\{?(?P<bar>[0-9]{1,40})\}?|\((?P<round>[0-9]{1,40})\)(?!\s?\^))"
)
_RUNNING = re.compile(
    r"(?<![0-9A-Za-z_.])(?P<whole>[0-9]{0,40})\.(?P<fixed>[0-9]{0,6}?)(?P<period>[0-9]{1,6}?)(?P=period){2,6}"
    r"\s?(?:\\[lc]?dots|\.\.\.)"
)


def repeating_decimals(text: str) -> str:
    r"""`0.\overline{3}`, `0.(3)` and `0.333\ldots` as `\frac{1}{3}`."""

    def exact(found: re.Match[str]) -> str:
        groups = found.groupdict()
        period = groups.get("bar") or groups.get("round") or groups["period"]
        fixed = found["fixed"]
        value = Fraction(int((found["whole"] or "0") + fixed)) if fixed or found["whole"] else Fraction(0)
        value = (value + Fraction(int(period), 10 ** len(period) - 1)) / 10 ** len(fixed)
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

    return _RUNNING.sub(exact, _REPEATING.sub(exact, text))
