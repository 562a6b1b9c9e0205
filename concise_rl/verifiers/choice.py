"""Multiple choice: one letter, or several."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from concise_rl.verifiers.answer import answer_text, boxes_from_the_end, last_box
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.notation import plain_characters
from concise_rl.verifiers.pool import BatchVerifier

MAX_TEXT_CHARS = 100_000
"""So much of an answer is searched, from its end."""

_STYLE = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|boldsymbol)(?![A-Za-z])\s?"
_OPEN = rf"(?:{_STYLE}|[\s*_$({{\[\"'`])"
_LATIN = r"A-Za-z0-9_'\u00c0-\u024f\u0400-\u04ff"
"""What makes a letter part of a word; Chinese is written without spaces."""

_CLOSED = rf"(?![{_LATIN}])"
_NO_WORD = r"(?!\s[a-z])"
_JOINED = r"(?:,\s?(?:and|or)\b|,|/|&|;|(?:and|or|y|o|et|ou|und|oder|e)\b|和|或|と|и\b)"

# Repeats are bounded, so that no text costs more than linear time.
_CAPITALS = (
    rf"(?<![{_LATIN}\\])(?P<letters>(?!I\s[a-z])[A-Z]{_CLOSED}"
    rf"(?:[\s)\]}}*_$.]{{0,6}}{_JOINED}{_OPEN}{{0,6}}(?!I\s[a-z])[A-Z]{_CLOSED}){{0,7}})"
)


def _any_of(words: str, *unspaced: str) -> str:
    """A pattern for any of the words, which no Latin letter may precede, or of texts in scripts without spaces."""
    spaced = "|".join(word.replace("_", r"\s") for word in words.split())
    return "|".join([rf"(?i:(?<![a-z])(?:{spaced}))", *unspaced])


_ANSWER = _any_of(
    "answers? respuesta solución resposta risposta réponse antwort lösung antwoord odpowiedź odpověď svar(?:et)? "
    "vastaus cevap yanıt jawaban(?:nya)? răspuns(?:ul)? válasz đáp_án câu_trả_lời ответ(?:ом)? відповідь απάντηση",
    *(
        "答案",
        "答え",
        "正解",
        "解答",
        "回答",
        "정답",
        "답",
        "الإجابة",
        "الجواب",
        "پاسخ",
        "उत्तर",
        "উত্তর",
        "คำตอบ",
        "תשובה",
    ),
)
_OPTION = _any_of(
    "option choice letter opción opção opzione optie alternativa wariant вариант", "选项", "選項", "選択肢"
)
_CHOSEN = _any_of(
    "choose pick select go(?:ing)?_with opt_for elijo choisis wähle scelgo escolho выбираю", "(?:故|应|應)?[选選]"
)
_RIGHT = (
    r"(?i:(?:is|are|es|est|ist|è|é|jest)\s(?:the\s|la\s|le\s|l'|die\s|il\s|a\s|o\s|both\s)?(?:\w{1,12}\s)?"
    r"(?:correct|right|answer|best|correcta|correcte|bonne|réponse|respuesta|richtig|antwort|corretta|risposta|correta"
    r"|resposta))"
)
_WRONG = re.compile(
    r"[\s)\]}*_$-]{0,6}(?:(?i:is|are|was|were|would be|seems|looks|can|could|does)\s?)?"
    r"(?i:n't|not\b|never|cannot|can't|wrong|incorrect|false|too\b|impossible|eliminated|ruled out|out\b|fails)"
)
_NOT_BEFORE = re.compile(
    r"(?i:(?:\b(?:not|nor|neither|isn't|aren't|wasn't|never|exclude|eliminate|rule out|unlike|than|no es|nicht|pas|не)"
    r"|不是)[\s*_$(\[{\"']{0,6}(?:option\s|choice\s)?[(\[]?)\Z"
)

_GIVEN = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:{_ANSWER})(?!\s?(?i:choice|option|key|sheet)s?\b\s?(?!is\b|:|[A-Z(]))"
        r"(?P<gap>[^A-Z.!?\n]{0,40}?)" + _CAPITALS,
        rf"(?:{_ANSWER})\s{{0,4}}(?:[:=]|\b)[\s*_]{{0,8}}(?i:is|would be)?:?[\s*_]{{0,8}}(?i:option|choice)?"
        rf"{_OPEN}{{0,8}}(?P<letters>[a-z]){_CLOSED}{_NO_WORD}",
        rf"(?:{_CHOSEN})(?P<gap>[^A-Z.!?\n]{{0,20}}?){_CAPITALS}",
        rf"{_CAPITALS}[)\]}}*_$.]{{0,6}}\s{{0,3}}{_RIGHT}",
        rf"(?i:\bnot\b)[^A-Z.!?\n]{{0,20}}[A-Z][)\]}}*_]{{0,4}},?\s(?i:but|sino|mais|sondern)[^A-Z.!?\n]{{0,20}}?{_CAPITALS}",
    )
)
_WEAKER = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:(?i:\b(?:so|thus|therefore|hence|donc|also|portanto|quindi|it(?:'s| is| must be)))|因此|所以)"
        rf"[\s,:]{{1,3}}(?:(?i:it(?:'s| is| must be)|the)\s)?(?:{_OPTION})?{_OPEN}{{0,8}}{_CAPITALS}(?!\s[a-z])",
        rf"(?:{_OPTION}){_OPEN}{{0,8}}(?:{_CAPITALS}|(?P<small>[a-z]){_CLOSED}{_NO_WORD})",
        r"[(\[](?P<letters>[A-Za-z])[)\]]",
        r"(?m:^)[\s*_>#-]{0,6}(?P<letters>[A-Z])(?:[\s*_]{0,6}(?m:$)|[.):]\s)",
        rf"(?<![{_LATIN}\\])(?P<letters>[A-Z]){_CLOSED}(?!(?<=[AI])\s(?!is\b)[a-z])",
    )
)
_NEGATED = re.compile(r"(?i)\bnot\b|n't\b|\bno es\b|\bnicht\b|\bn'est pas\b|\bне\b|不是")

_BARE = re.compile(rf"{_STYLE}|[{{}}$*_`]|\\[ ,;:!]|~")
_LETTER_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:]?")
_LETTERS_ALONE = re.compile(
    r"[(\[]?[A-Za-z][)\]]?(?:\s{0,3}(?:,\s?(?:and|or)\s|,|/|&|;|and\s|or\s)\s{0,3}[(\[]?[A-Za-z][)\]]?){1,7}\.?"
)
_RUN = re.compile(r"(?=[A-H]{2,8}\Z)A?B?C?D?E?F?G?H?")
_LABELLED = re.compile(r"(?:[(\[]([A-Z])[)\]]|([A-Z])[.):])\s?(?![-+*/=^<>|])(?=\S)")
_NAMED = re.compile(
    r"(?i:(?:the )?(?:final |correct )?(?:answer|option|choice)(?: is)?)\s?:?\s?(?:option )?[(\[]?([A-Za-z])[)\]]?\.?"
)


@dataclass
class Choice(BatchVerifier):
    r"""The letters A to Z that are given as the answer, in the first of these forms that occurs.

    1. the last `\boxed{}`, if it holds letters and no formula: `\boxed{B}`, `\boxed{\text{(B) } 12}`, `\boxed{A, C}`
    2. a statement, the last one: `Answer: B`, `the answer is (B)`, `B is correct`, `I choose B`; also `respuesta`,
       `réponse`, `Antwort`, `答案`, `ответ` and the like. "The answer is not A" is none
    3. a conclusion, `so (D)` or `it is B`; then `option B`; then `(B)`, `[B]`; then a line that holds a capital alone;
       then a capital that stands alone, unless it is the word in "A man" or "I think". What is called wrong does not
       count, and of what is left the last sentence does

    Several letters are several: "A or B" is neither A nor B. A small letter counts in a box, in brackets, and after
    "answer" or "option" only. The reference is one letter, bare or as `(B)`, `B.` or `\boxed{B}`, or a list, `A, C`,
    all of which must be given; anything else is unscorable.
    """

    hostile_input_safe: ClassVar[bool] = True

    def __call__(self, completion: str, reference: str) -> Verdict:
        gold = _reference(reference)
        if gold is None:
            return Verdict.unscorable(f"the reference {reference[:40]!r} is not a letter")
        letters = _chosen(plain_characters(answer_text(completion)[-MAX_TEXT_CHARS:]))
        if letters is None:
            return Verdict.of(False, "no letter found")
        return Verdict.of(letters == gold, f"read {', '.join(sorted(letters))}")

    def wrap_reference(self, reference: str) -> str:
        """A completion that must verify: `\\boxed{B}`."""
        gold = _reference(reference)
        return f"\\boxed{{{', '.join(sorted(gold))}}}" if gold else reference


def _reference(reference: str) -> frozenset[str] | None:
    text = plain_characters(reference[:200]).strip()
    box = last_box(text)
    text = _bare(text if box is None else box)
    if _LETTER_ALONE.fullmatch(text) or _LETTERS_ALONE.fullmatch(text):
        return _letters(text)
    return None


def _bare(text: str) -> str:
    return " ".join(_BARE.sub(" ", text).split())


def _letters(text: str) -> frozenset[str]:
    return frozenset(letter.upper() for letter in re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", text))


def _chosen(text: str) -> frozenset[str] | None:
    box = last_box(text)
    if box is not None and (boxed := _boxed(_bare(box[:400]))):
        return boxed
    if _LETTER_ALONE.fullmatch(bare := _bare(text[:40] if len(text) <= 40 else "")):
        return _letters(bare)
    for formula in islice(boxes_from_the_end(text), 8):
        text = text.replace(formula, " ")
    given = [found for form in _GIVEN for found in deque(_affirmed(form, text), maxlen=1)]
    if given:
        return _capitals(max(given, key=lambda found: found.end("letters")))
    for form in _WEAKER:
        found = list(_affirmed(form, text))
        if found:
            sentence = text[_sentence_start(text, found[-1].start()) :]
            last = [match for match in found if len(text) - match.start() <= len(sentence)]
            return frozenset[str]().union(*map(_capitals, last))
    return None


def _affirmed(form: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The matches of a form that are not called wrong."""
    for found in form.finditer(text):
        groups = found.groupdict()
        name = "small" if groups.get("small") else "letters"
        if _WRONG.match(text, found.end(name)) or _NEGATED.search(groups.get("gap") or ""):
            continue
        start = found.start(name)
        if not _NOT_BEFORE.search(text, max(0, start - 24), start):
            yield found


def _capitals(found: re.Match[str]) -> frozenset[str]:
    groups = found.groupdict()
    letters = groups.get("letters") or groups.get("small") or ""
    return _letters(letters) if len(letters) > 1 else frozenset(letters.upper())


def _sentence_start(text: str, end: int) -> int:
    """Where the sentence that holds a position begins: behind a line's end, or a full stop and a space."""
    return max(text.rfind("\n", 0, end), text.rfind(". ", 0, end), text.rfind("? ", 0, end)) + 1


def _boxed(inner: str) -> frozenset[str] | None:
    """The letters that a box holds; None for a formula or another text."""
    if _LETTER_ALONE.fullmatch(inner) or _LETTERS_ALONE.fullmatch(inner):
        return _letters(inner)
    if _RUN.fullmatch(inner):
        return frozenset(inner)
    if found := _NAMED.fullmatch(inner) or _LABELLED.match(inner):
        return frozenset(next(letter for letter in found.groups() if letter).upper())
    return None
