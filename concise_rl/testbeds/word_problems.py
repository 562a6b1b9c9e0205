"""Word problems of one to three operations, made on the fly: for small language models that reason in sentences.

    Nora has 6 shells. She finds 9 more. Then she gives 5 of them to her brother. How many shells does Nora have now?

A model of half a billion parameters answers them step by step far better than at once, so thinking has a price and a
worth, and no data set has to be fetched.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.testbeds.splits import draw_distinct

PEOPLE = (
    ("Nora", "She", "her"), ("Emil", "He", "his"), ("Aisha", "She", "her"), ("Tom", "He", "his"),
    ("Priya", "She", "her"), ("Luca", "He", "his"), ("Mei", "She", "her"), ("Omar", "He", "his"),
)  # fmt: skip
"""A name, and how it is spoken of."""

THINGS = ("shells", "stickers", "marbles", "coins", "buttons", "cards", "beads", "pencils", "stamps", "pebbles")
MOST = 200
"""No count is multiplied beyond this."""

_SPLITS = ("train", "test")

Step = tuple[str, int]
"""A sentence, and the count after it."""


def _more(rng: random.Random, count: int, she: str, her: str, things: str) -> Step:
    added = rng.randint(2, 30)
    told = rng.choice(
        [f"{she} finds {added} more.", f"{she} is given {added} more {things}.", f"{she} buys {added} more."]
    )
    return told, count + added


def _fewer(rng: random.Random, count: int, she: str, her: str, things: str) -> Step:
    taken = rng.randint(1, max(1, count - 1))
    friend = rng.choice(["brother", "teacher", "neighbour", "cousin"])
    told = rng.choice([f"{she} gives {taken} of them to {her} {friend}.", f"{she} loses {taken} of them."])
    return told, count - taken


def _times(rng: random.Random, count: int, she: str, her: str, things: str) -> Step:
    factor = rng.randint(2, 4)
    word = {2: "twice", 3: "three times", 4: "four times"}[factor]
    return f"After a trade {she.lower()} has {word} as many {things} as before.", count * factor


def _shared(rng: random.Random, count: int, she: str, her: str, things: str) -> Step:
    parts = rng.choice([parts for parts in (2, 3, 4, 5) if count % parts == 0])
    return f"{she} puts them into {parts} equal piles and keeps one pile.", count // parts


Kind = Callable[[random.Random, int, str, str, str], Step]


def _possible(count: int) -> list[Kind]:
    kinds: list[Kind] = [_more]
    if count > 2:
        kinds.append(_fewer)
    if count * 4 <= MOST:
        kinds.append(_times)
    if count > 5 and any(count % parts == 0 for parts in (2, 3, 4, 5)):
        kinds.append(_shared)
    return kinds


def draw_story(rng: random.Random, operations: int) -> tuple[str, int]:
    """A story of so many operations, no two alike in a row, and its answer."""
    (name, she, her), things = rng.choice(PEOPLE), rng.choice(THINGS)
    count = rng.randint(3, 30)
    sentences, last = [f"{name} has {count} {things}."], None
    for place in range(operations):
        last = rng.choice([kind for kind in _possible(count) if kind is not last])
        told, count = last(rng, count, she, her, things)
        sentences.append(f"Then {told[0].lower()}{told[1:]}" if place else told)
    return f"{' '.join(sentences)} How many {things} does {name} have now?", count


@dataclass
class WordProblems:
    """Stories with one to `max_operations` operations, taking turns; the column `difficulty` is their number.

    A hash of the text decides its side of the split, so no size and no seed can make the sides overlap.

    Attributes:
        train_size: problems of the train split.
        test_size: problems of the test split.
        min_operations: of the easiest problems.
        max_operations: of the hardest problems.
        seed: which problems are drawn; it never moves one from one split to the other.
        verifier: name of the verifier for the answers; `final_number` takes the last number of a text.

    Raises:
        UserError: a field is out of its range, or `load` is asked for an unknown split.
    """

    train_size: int = 512
    test_size: int = 256
    min_operations: int = 1
    max_operations: int = 3
    seed: int = 0
    verifier: str = "final_number"

    def __post_init__(self) -> None:
        for name in ("train_size", "test_size"):
            if getattr(self, name) < 1:
                raise UserError(f"WordProblems.{name}={getattr(self, name)} must be at least 1")
        if not 1 <= self.min_operations <= self.max_operations:
            raise UserError(
                f"WordProblems.min_operations={self.min_operations}, max_operations={self.max_operations}: "
                "give 1 <= min_operations <= max_operations"
            )

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"` or `"test"`; the same for the same fields."""
        if split not in _SPLITS:
            raise UserError(f"WordProblems has no split {split!r}; it has {list(_SPLITS)}")
        rng = random.Random(f"{self.seed}/{split}")
        size = self.train_size if split == "train" else self.test_size
        levels = range(self.min_operations, self.max_operations + 1)
        answers: dict[str, int] = {}

        def drawn(operations: int) -> str:
            question, answer = draw_story(rng, operations)
            answers[question] = answer
            return question

        shares = [len(range(place, size, len(levels))) for place in range(len(levels))]
        by_level = [
            iter(draw_distinct(partial(drawn, n), split, share, f"WordProblems level {n}"))
            for n, share in zip(levels, shares, strict=True)
        ]
        prompts = []
        for place in range(size):
            question = next(by_level[place % len(levels)])
            difficulty = levels[place % len(levels)]
            prompts.append(Prompt.of(question, str(answers[question]), difficulty=difficulty))
        return prompts
