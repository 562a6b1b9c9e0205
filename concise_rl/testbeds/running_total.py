"""Test bed M: a running total in which every step may be skipped, at the risk of an error.

    question                      7a+4b-3c+9d-5=
    every total                   <think>a11b8c17</think>12
    two operations at once        <think>b8</think>12
    all four at once              <think></think>12

A letter names the operation up to which the total that follows it is worked out. Which totals are written is a
*composition* of the number n of operations: its parts are the operations merged into one total, the last part being the
answer's. `(1, 1, 1, 1)` writes every total, `(2, 2)` every other, `(4,)` none. A letter left out saves two or three
tokens, and a small model gets a total wrong the oftener the more operations it merges: capacity, not noise, makes the
error, so training does not take it away.

The law of that error is measured on the model (`laws.py`); the best that any policy can do follows (`frontier.py`).
"""

from __future__ import annotations

import itertools
import random
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.testbeds.splits import check_split, draw_distinct, split_of
from concise_rl.testbeds.teacher import THINK_CLOSE, THINK_OPEN, Trace

LETTERS = string.ascii_lowercase
"""Names of the operations, in order."""

MAX_TERM, MAX_TOTAL = 9, 30

Composition = tuple[int, ...]
"""Operations merged into each total, in order; the last part is the answer's. The sum is n."""

_SHAPE = re.compile(rf"{THINK_OPEN}((?:[a-z]\d+)*){THINK_CLOSE}(\d+)")


@dataclass(frozen=True)
class Total:
    """A total that a completion states: after `start` operations, `merged` more were worked in.

    Attributes:
        start: operations of the total before it (0: the first term).
        merged: operations that it adds.
        value: what the completion says.
        right: whether that is the true total.
    """

    start: int
    merged: int
    value: int
    right: bool


def totals(question: str) -> list[int]:
    """The totals after 0, 1, ..., n operations: `7a+4b-3=` gives `[7, 11, 8]`, whatever an edit put behind it."""
    found: list[int] = []
    for term in re.findall(r"[+-]?\d+", question.partition("=")[0]):
        found.append((found[-1] if found else 0) + int(term))
    return found


def completion(question: str, composition: Composition) -> str:
    """The right completion (without EOS) that writes the totals of a composition.

    Raises:
        ValueError: its parts do not sum to the operations of the question.
    """
    true = totals(question)
    if sum(composition) != len(true) - 1 or min(composition) < 1:
        raise ValueError(f"composition={composition} does not sum to the {len(true) - 1} operations of {question}")
    ends = [sum(composition[: i + 1]) for i in range(len(composition) - 1)]
    written = "".join(f"{LETTERS[end - 1]}{true[end]}" for end in ends)
    return f"{THINK_OPEN}{written}{THINK_CLOSE}{true[-1]}"


def parse(question: str, text: str) -> list[Total] | None:
    """What a completion states, total by total, the answer last; None where it breaks the grammar."""
    true, shape = totals(question), _SHAPE.fullmatch(text)
    if shape is None:
        return None
    stated = [(LETTERS.index(letter) + 1, int(value)) for letter, value in re.findall(r"([a-z])(\d+)", shape[1])]
    stated.append((len(true) - 1, int(shape[2])))
    ends = [0, *(end for end, _ in stated)]
    if any(a >= b for a, b in itertools.pairwise(ends)):
        return None
    return [
        Total(start, end - start, value, value == true[end]) for start, (end, value) in zip(ends, stated, strict=False)
    ]


def tokens(question: str, composition: Composition) -> int:
    """Sampled tokens of `completion`, EOS included: the embedded model has one a tag and a character."""
    text = completion(question, composition)
    return len(text) - len(THINK_OPEN) - len(THINK_CLOSE) + 3


def compositions(n: int) -> Iterator[Composition]:
    """All 2^(n-1) compositions of n."""
    if n == 0:
        yield ()
    for first in range(1, n + 1):
        for rest in compositions(n - first):
            yield (first, *rest)


def draw_question(rng: random.Random, n_operations: int) -> str:
    """A question whose terms are 1..9 with a sign and whose totals lie within 0..30."""
    total = rng.randint(1, MAX_TERM)
    question = str(total)
    for letter in LETTERS[:n_operations]:
        term = rng.choice([t for t in range(-MAX_TERM, MAX_TERM + 1) if t and 0 <= total + t <= MAX_TOTAL])
        total += term
        question += f"{letter}{term:+d}"
    return question + "="


@dataclass
class RunningTotal:
    """Test bed M as a data source.

    Columns: `difficulty` (operations), `oracle_tokens` (tokens with every total written), `least_tokens` (with none),
    `hard` (the harder half of the levels), `testbed`. Problems are distinct, levels take turns.

    Attributes:
        train_size: problems of the train split.
        test_size: problems of the test split.
        law_size: problems of the split `law`, on which the law is measured.
        levels: operations of the problems, easiest first.
        seed: which problems are drawn; it never moves a problem from one split to another.
        verifier: name of the verifier for the answers.

    Raises:
        UserError: a field is out of its range, or `load` is asked for an unknown split.
        DataError: a size asks for more distinct problems than are found.
    """

    train_size: int = 256
    test_size: int = 512
    law_size: int = 1024
    levels: list[int] = field(default_factory=lambda: [2, 4, 6, 8])
    seed: int = 0
    verifier: str = "exact"

    def __post_init__(self) -> None:
        for name in ("train_size", "test_size", "law_size"):
            if getattr(self, name) < 1:
                raise UserError(f"RunningTotal.{name}={getattr(self, name)} must be at least 1")
        if not self.levels or sorted(set(self.levels)) != list(self.levels) or not self.levels[0] >= 1:
            raise UserError(f"RunningTotal.levels={list(self.levels)}: give different numbers of operations, rising")
        if self.levels[-1] > len(LETTERS):
            raise UserError(f"RunningTotal.levels={list(self.levels)}: at most {len(LETTERS)} operations have letters")

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"`, `"test"` or `"law"`; the same for the same fields."""
        check_split("RunningTotal", split)
        rng = random.Random(f"{self.seed}/{split}")
        size = getattr(self, f"{split}_size")
        shares = [len(range(place, size, len(self.levels))) for place in range(len(self.levels))]
        by_level = [
            iter(draw_distinct(partial(draw_question, rng, n), split, share, f"RunningTotal level {n}"))
            for n, share in zip(self.levels, shares, strict=True)
        ]
        return [self._prompt(next(by_level[place % len(self.levels)])) for place in range(size)]

    def _prompt(self, question: str) -> Prompt:
        true = totals(question)
        n = len(true) - 1
        return Prompt.of(
            question,
            str(true[-1]),
            difficulty=n,
            oracle_tokens=tokens(question, (1,) * n),
            least_tokens=tokens(question, (n,)),
            testbed="running_total",
            hard=n in self.levels[len(self.levels) // 2 :],
        )


MEASURED = {2: 256, 4: 1024, 6: 1024, 8: 512}
"""Problems of a level on which a law is measured, or held against behaviour: level 2 has few, and each of level 8 has
128 compositions."""


def measured_problems(split: str) -> list[Prompt]:
    """So many problems of each level of the split `law` or `test`, level by level."""
    return [
        p for n, size in MEASURED.items() for p in RunningTotal(levels=[n], test_size=size, law_size=size).load(split)
    ]


@dataclass
class Merging:
    """The teacher: right totals, each of which merges a random number of operations.

    Attributes:
        levels: operations of the problems, equally likely.
        jump_weights: relative frequency of a total that merges 1, 2, 3, ... operations; those of jumps beyond the
            last operation are left out.
        plain_share: share of the traces, the first ones, in which every total is written.
    """

    levels: Sequence[int] = (2, 4, 6, 8)
    jump_weights: Sequence[float] = (0.8, 0.12, 0.05, 0.03)
    plain_share: float = 0.0

    def traces(self, n_traces: int, rng: random.Random) -> Iterator[Trace]:
        """Endless traces from the train side."""
        n_plain, made = round(self.plain_share * n_traces), 0
        while True:
            question = draw_question(rng, rng.choice(self.levels))
            if split_of(question) != "train":
                continue
            n = len(totals(question)) - 1
            yield question, completion(question, (1,) * n if made < n_plain else self._draw(n, rng))
            made += 1

    def _draw(self, n: int, rng: random.Random) -> Composition:
        left, parts = n, []
        while left:
            weights = self.jump_weights[:left]
            parts.append(rng.choices(range(1, len(weights) + 1), weights)[0])
            left -= parts[-1]
        return tuple(parts)
