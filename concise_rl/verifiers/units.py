r"""What stands beside a number: its base, unit, a.m. or p.m., increase or decrease, a direction.

Two answers may differ in that one of them leaves such a note out. Two notes of one kind that differ contradict:
`2516_8` and `2516_9`, 5 cm and 5 m. A word that is in no table here, such as "apples", contradicts nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

_SPELLINGS = {
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm cms centimeter centimeters centimetre centimetres",
    "dm": "dm decimeter decimeters decimetre decimetres",
    "m": "m meter meters metre metres mtr",
    "km": "km kms kilometer kilometers kilometre kilometres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yds yard yards",
    "mi": "mi mile miles",
    "mg": "mg milligram milligrams",
    "g": "g gm gram grams",
    "kg": "kg kgs kilogram kilograms",
    "oz": "oz ounce ounces",
    "lb": "lb lbs",
    "ms": "ms millisecond milliseconds",
    "s": "s sec secs second seconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "day": "d day days",
    "week": "wk week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "l": "l liter liters litre litres",
    "gal": "gal gallon gallons",
    "deg": "deg degree degrees",
    "rad": "rad rads radian radians",
    "celsius": "celsius centigrade",
    "fahrenheit": "fahrenheit",
    "k": "kelvin kelvins",
    "usd": "usd dollar dollars buck bucks",
    "cent": "cent cents",
    "eur": "eur euro euros",
    "gbp": "gbp",
    "inr": "rs inr rupee rupees",
    "mi/h": "mph",
    "km/h": "kmh kmph kph",
    "n": "newton newtons",
    "j": "joule joules",
    "w": "watt watts",
    "v": "volt volts",
    "hz": "hz hertz",
    "pa": "pa pascal pascals",
    "acre": "acre acres",
}
_UNITS = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}
_CURRENCIES = {"$": "usd", "\u20ac": "eur", "\u00a3": "gbp", "\u00a5": "jpy", "\u20b9": "inr", "\u00a2": "cent"}
_DIRECTIONS = {
    "increase": "up increase increases increased gain gained rise rose growth higher more profit greater above",
    "decrease": "down decrease decreases decreased loss lost fall fell drop dropped lower less reduction below fewer",
}
_CHANGES = {word: change for change, words in _DIRECTIONS.items() for word in words.split()}
_COMPASS = {"north": "N", "south": "S", "east": "E", "west": "W"}
_COMPASS |= {a + b: _COMPASS[a] + _COMPASS[b] for a in ("north", "south") for b in ("east", "west")}
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_BASES |= {"ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16", "binary": "2", "octal": "8", "decimal": "10"}
_BASES |= {"hex": "16", "hexadecimal": "16"}
_POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}


@dataclass(frozen=True)
class Note:
    """What is said of a number beside its value; "" where nothing is."""

    base: str = ""
    clock: str = ""
    change: str = ""
    compass: str = ""
    unit: str = ""

    def contradicts(self, other: Note) -> bool:
        """Whether both say something of one kind, and not the same."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return any(a and b and a != b for a, b in pairs)


_STYLE = r"\\(?:text|textbf|textit|textrm|textsc|textnormal|mbox|mathrm|mathbf|mathit|mathsf|rm|operatorname)"
_GAP = r"(?:\s|\\[,;:! ]|~|\{\}|\\q?quad)"
_POWER = r"(?:\s?\^\s?(?:\{\s?-?[1-4]\s?\}|[1-4]))"
_GROUP = re.compile(rf"{_STYLE}\s?\{{([^{{}}]*)\}}({_POWER}?)$")
_DEGREE = re.compile(r"\^\s?(?:\{\s?\\circ\s?\}|\\circ)\s?([CFNSEW]?)$|\\degree\s?([CFNSEW]?)$")
_CLOCK = re.compile(rf"(?<=[0-9]){_GAP}{{0,2}}([AaPp]\.?\s?[Mm])$")
_PERCENT = re.compile(r"\\?%$")
_LEADING = re.compile(rf"^{_STYLE}\s?\{{([^{{}}]*)\}}{_GAP}*(?=[-+]?(?:[0-9.]|\\[dt]?frac|\\sqrt))")
_CURRENCY = re.compile(
    r"^([-+]?)\s?(?:US)?(?:\\([$]|pounds|euro)|([$\u20ac\u00a3\u00a5\u20b9\u00a2]))\s?([-+]?)(?=[0-9.\\])"
)
_CURRENCY_BEHIND = re.compile(r"\s?([\u20ac\u00a3\u00a5\u20b9\u00a2])$")
_BASE = re.compile(
    r"^([-+]?)\(?([0-9][0-9A-Za-z]*|[A-Za-z]+[0-9][0-9A-Za-z]*(?=[)_]*_(?:1[1-9]|[2-3][0-9]|\{1[1-9]|\{[2-3][0-9])))\)?"
    rf"_(?:([0-9])|\{{\s?\(?(?:{_STYLE}\s?\{{)?\s?(?:base )?([0-9]+|[A-Za-z]+)\s?\}}?\)?\s?\}}"
    rf"|{_STYLE}\s?\{{\s?(\w+)\s?\}})$"
)
_BASE_BEHIND = re.compile(
    rf"^(.*[0-9A-Za-z)])\s?(?:{_STYLE}\s?\{{\s?|\(|\s)(?:in )?base[- ]?\s?\}}?\s?\{{?([0-9]{{1,3}})\}}?\)?$"
)
_BASE_WORD = re.compile(r"^\(?(?:in )?base[- ]?(\w+)\)?$|^\(?(?:in )?(binary|octal|decimal|hexadecimal|hex)\)?$")
_ENDS_A_VALUE = re.compile(r"[0-9A-Za-z)}\]!'|%]$")
_OPEN_COMMAND = re.compile(r"\\(?!pi$|infty$|circ$|%$|theta$|alpha$|beta$|degree$)[A-Za-z]+$")

_WORD = rf"(?:[A-Za-z]{{2,20}}\.?{_POWER}?|[mgshlLNJWVKCFd]{_POWER})"
_TAIL = re.compile(
    rf"(?<=[0-9)}}\]%])(?P<gap>{_GAP}{{0,4}})(?P<words>(?:{_WORD}|m|s|h)"
    rf"(?:(?:{_GAP}{{1,2}}|{_GAP}?/{_GAP}?)(?:{_WORD}|[0-9]{{1,4}}(?=\s[a-z])|m|s|h{_POWER}?)){{0,5}}\.?)$"
)
_TAIL_CHARS = 80
_LETTER = re.compile(rf"(?<=[0-9)}}]){_GAP}{{0,2}}([mgshlLNJWVKCFAd]{_POWER}?(?:/[a-z]{_POWER}?)?)$")
_CONNECTIVES = "and or if for where with when then is are not to of the from choose times over union"
_FUNCTIONS = "mod pmod sin cos tan cot csc log ln exp max gcd lcm pi sqrt inf infinity"
_NO_UNITS = frozenset(f"{_CONNECTIVES} {_FUNCTIONS}".split())
_WORDS = re.compile(r"[A-Za-z]+|[0-9]+|/|\^\s?\{?\s?(-?[0-9])")


def split_note(text: str, *, letters: bool = False) -> tuple[str, Note]:
    r"""A value and what is said beside it: `42 m^2` is (`42`, m2), `5:30 \text{ p.m.}` is (`5:30`, p.m.).

    Args:
        text: LaTeX.
        letters: a letter behind a number is a unit: `5m`. Right where the other answer holds no letter.
    """
    said: list[str] = []
    text, currency = _without_currency(text.strip())
    if lead := _LEADING.match(text):
        said.append(lead[1])
        text = text[lead.end() :]
    for _ in range(8):
        shorter, words = _without_last_note(_without_gap(text), letters)
        if shorter is None:
            break
        text = shorter
        said.insert(0, words)
    text = _BASE_BEHIND.sub(r"\1_{\2}", _without_gap(text))
    note = note_of(" ".join(said), currency)
    numeral = _BASE.match(text)
    if numeral:
        base = (numeral[3] or numeral[4] or numeral[5]).lower()
        note = Note(_BASES.get(base, base), note.clock, note.change, note.compass, note.unit)
        text = numeral[1] + numeral[2]
    return text, note


def _without_currency(text: str) -> tuple[str, str]:
    if found := _CURRENCY.match(text):
        name = found[2] or found[3]
        unit = _CURRENCIES.get(name) or {"pounds": "gbp", "euro": "eur"}[name]
        return (found[1] or found[4]) + text[found.end() :], unit
    if found := _CURRENCY_BEHIND.search(text):
        return text[: found.start()], _CURRENCIES[found[1]]
    return text, ""


def _without_gap(text: str) -> str:
    """Without the white space and the full stop at the end."""
    for _ in range(8):
        shorter = re.sub(rf"{_GAP}$", "", text)
        if shorter.endswith(".") and not shorter.endswith(("..", r"\.")):
            shorter = shorter[:-1]
        if shorter == text:
            break
        text = shorter
    return text


def _without_last_note(text: str, letters: bool) -> tuple[str | None, str]:
    """What stands before the last note, None where there is no note; and the note's words."""
    if found := _DEGREE.search(text):
        return text[: found.start()], "degrees " + (found[1] or found[2] or "")
    if (found := _PERCENT.search(text)) and text[: found.start()].strip():
        return text[: found.start()], ""
    if found := _CLOCK.search(text):
        return text[: found.start()], found[1]
    found = _GROUP.search(text)
    if found:
        words = found[1] + found[2]
    else:
        words = _bare_note(text[-_TAIL_CHARS:], letters)
        return (text[: len(text) - len(words)], words) if words else (None, "")
    before = _without_gap(text[: found.start()])
    if not _ENDS_A_VALUE.search(before) or _OPEN_COMMAND.search(before):
        return None, ""
    return before, words


def _bare_note(tail: str, letters: bool) -> str:
    """Bare letters behind a number that are words: a unit's name, or English after a space; `2xy` is algebra."""
    found = _TAIL.search(tail)
    if found and _is_note(found["gap"], found["words"]):
        return found[0]
    letter = _LETTER.search(tail) if letters else None
    return letter[0] if letter else ""


def _is_note(gap: str, said: str) -> bool:
    words = re.findall("[A-Za-z]+", said)
    if any(word.lower() in _NO_UNITS for word in words[1:]) or words[0].lower() in _NO_UNITS - {"in"}:
        return False
    if all(word.lower() in _UNITS or word.lower() in ("per", "sq", "am", "pm") for word in words):
        return len(words[0]) > 1 or (bool(gap) and bool({"^", "/"} & set(said)))
    return bool(gap) and len(words[0]) > 2


def note_of(words: str, unit: str = "") -> Note:
    """The note that words make: "cm^2", "p.m.", "degrees N", "increase"."""
    base = _BASE_WORD.match(words.strip().lower())
    if base:
        name = base[1] or base[2]
        return Note(base=_BASES.get(name, name))
    clock = re.search(r"(?<![A-Za-z])([ap])\s?\.?\s?m(?![A-Za-z])\.?", words.lower())
    if clock:
        return Note(clock=clock[1], unit=unit)
    names = re.findall("[A-Za-z]+", words)
    change = next((_CHANGES[name.lower()] for name in names if name.lower() in _CHANGES), "")
    compass = next((_COMPASS[name.lower()] for name in names if name.lower() in _COMPASS), "")
    if not compass and names and names[-1] in ("N", "S", "E", "W") and (len(names) == 1 or "degrees" in names):
        compass = names[-1]
    return Note("", "", change, compass, unit or _unit(words))


def _unit(words: str) -> str:
    """The unit that words name, as `cm2` or `km/h`; "" where a word is in no table."""
    made: list[str] = []
    power = ""
    for token in _WORDS.finditer(words):
        word = token[0]
        if word.startswith("^"):
            if made:
                made[-1] += "" if token[1] == "1" else token[1]
        elif word.lower() in _POWERS:
            if word.lower().endswith("ed") and made:
                made[-1] += _POWERS[word.lower()]
            else:
                power = _POWERS[word.lower()]
        elif word in ("/", "per"):
            made.append("/")
        elif (name := _unit_name(word)) is not None:
            made.append(name + power)
            power = ""
        else:
            return ""
    return _whole_unit(made)


def _unit_name(word: str) -> str | None:
    if word in ("C", "F", "K"):
        return {"C": "celsius", "F": "fahrenheit", "K": "k"}[word]
    return _UNITS.get(word if len(word) == 1 and word not in "LNJWV" else word.lower())


def _whole_unit(made: list[str]) -> str:
    if made[:1] == ["deg"] and made[1:] in (["celsius"], ["fahrenheit"]):
        made = made[1:]
    return "".join(made)
