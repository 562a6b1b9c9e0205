"""A back end that says what it is told to: one character is one token, `|` ends a thought and `$` a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from concise_rl.methods.contracts import Sampler
from concise_rl.rollouts import LocalRollout, PolicyPrompt, Sampled, TokenRequest, TokenVocabulary

EOS, THINK_END = ord("$"), ord("|")
VOCABULARY = TokenVocabulary(frozenset({EOS}), THINK_END, "</think>")
NO_TAG = TokenVocabulary(frozenset({EOS}))


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


class Fake:
    """`Generate` whose n-th call gives the n-th list of texts, each cut to what was asked for."""

    vocabulary = VOCABULARY

    def __init__(self, *waves: Sequence[str], logprobs: bool = False) -> None:
        self.waves, self.logprobs, self.asked = list(waves), logprobs, list[list[TokenRequest]]()

    def __call__(self, requests: Sequence[TokenRequest]) -> list[Sampled]:
        if not requests:
            return []
        self.asked.append(list(requests))
        texts = self.waves.pop(0)
        assert len(texts) == len(requests), f"{len(requests)} requests, {len(texts)} texts"
        cut = [ids(text)[: request.limit] for text, request in zip(texts, requests, strict=True)]
        return [Sampled(tokens, tuple(-float(t) for t in tokens) if self.logprobs else None) for tokens in cut]

    def encode(self, text: str) -> tuple[int, ...]:
        return ids(text.replace("</think>", "|"))

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))


class Rng:
    """A generator whose whole numbers are given in advance."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def randint(self, low: int, high: int) -> int:
        number = self.numbers.pop(0)
        assert low <= number <= high, f"{number} is not in {low}..{high}"
        return number

    def getrandbits(self, _: int) -> int:
        return 7


def prompt(limit: int, **others: Any) -> PolicyPrompt:
    return PolicyPrompt("q", "What?", ids("Q"), {}, limit, **others)


def rows_of(sampler: Sampler, fake: Fake, *, limit: int, group_size: int, rng: Any = None) -> list[LocalRollout]:
    """The rows of one prompt; every text of the fake must have been asked for."""
    rows = sampler([prompt(limit)], group_size, fake, rng or Rng())
    assert not fake.waves, "texts are left over"
    return rows


def shown(row: LocalRollout) -> str:
    """Its text, with the forced tokens in brackets."""
    text, inside = "", False
    sampled = [True] * len(row.token_ids) if row.sampled is None else row.sampled
    for token, own in zip(row.token_ids, sampled, strict=True):
        if inside == bool(own):
            text, inside = text + ("]" if inside else "["), not inside
        text += chr(token)
    return text + ("]" if inside else "")
