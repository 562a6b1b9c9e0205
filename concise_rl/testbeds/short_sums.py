"""Short sums in words, for small chat models that answer in sentences: `What is 7 + 5?`, reference `12`."""

from __future__ import annotations

import random
from dataclasses import dataclass

from concise_rl.data.base import Prompt, content_key
from concise_rl.errors import DataError, UserError

_TEST_SHARE = 0.5  # a constant, not a field: two configurations must agree on which side of the split a sum lies


@dataclass
class ShortSums:
    """Sums of two numbers of 1..max_operand.

    A hash of the two numbers, whatever their order, decides a sum's side of the split: what is trained as 7 + 5 is
    never asked again as 5 + 7. A prompt's column `difficulty` is the number of digits of the sum.

    Attributes:
        train_size: problems of the train split.
        test_size: problems of the test split.
        max_operand: M; there are M**2 problems on both sides together.
        seed: which problems are drawn and in which order; it never moves one from one split to the other.
        verifier: name of the verifier for the answers; `final_number` takes the last number of a sentence.

    Raises:
        UserError: a field is out of its range, or `load` is asked for an unknown split.
        DataError: a size asks for more distinct problems than there are.
    """

    train_size: int = 80
    test_size: int = 60
    max_operand: int = 12
    seed: int = 0
    verifier: str = "final_number"

    def __post_init__(self) -> None:
        for name in ("train_size", "test_size", "max_operand"):
            if getattr(self, name) < 1:
                raise UserError(f"ShortSums.{name}={getattr(self, name)} must be at least 1")

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"` or `"test"`, shuffled; the same for the same fields."""
        if split not in ("train", "test"):
            raise UserError(f"ShortSums has no split {split!r}; it has ['train', 'test']")
        numbers = range(1, self.max_operand + 1)
        pairs = [(a, b) for a in numbers for b in numbers if on_test_side(a, b) == (split == "test")]
        size = self.train_size if split == "train" else self.test_size
        if size > len(pairs):
            raise DataError(
                f"ShortSums.{split}_size={size}: only {len(pairs)} distinct problems exist; lower it, or raise "
                f"max_operand={self.max_operand}"
            )
        chosen = random.Random(f"{self.seed}/{split}").sample(pairs, size)
        return [Prompt.of(f"What is {a} + {b}?", str(a + b), difficulty=len(str(a + b))) for a, b in chosen]


def on_test_side(a: int, b: int) -> bool:
    """Whether the sum of two numbers is kept for testing, in either order."""
    return int(content_key(*map(str, sorted((a, b)))), 16) < _TEST_SHARE * 2**64
