"""The embedded task: sums of two to six small integers, whose shortest correct reasoning is known.

    question             7+4-3+9=
    oracle completion    <think>7+4=11;11-3=8;8+9=17</think>17

Difficulty is the number of operands. The oracle is one running sum without repetition, so how far a policy is from the
fewest tokens that still show the reasoning can be measured on every problem.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from concise_rl.data.base import Prompt, content_key
from concise_rl.errors import DataError, UserError

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

_TEST_SHARE = 0.4  # a constant, not a field: two configurations must agree on which side of the split a question lies
_SPLITS = ("train", "test")


def operands(question: str) -> list[int]:
    """The signed operands of a question: `7+4-3=` gives `[7, 4, -3]`."""
    return [int(term) for term in re.findall(r"[+-]?\d+", question)]


def answer(question: str) -> str:
    """The right answer, as written after `</think>`."""
    return str(sum(operands(question)))


def running_sum(question: str) -> str:
    """The chain of partial sums, `7+4=11;11-3=8`: the least that shows the reasoning."""
    total, *rest = operands(question)
    steps = []
    for term in rest:
        steps.append(f"{total}{term:+d}={total + term}")
        total += term
    return ";".join(steps)


def oracle_completion(question: str) -> str:
    """The shortest correct completion (without EOS)."""
    return f"{THINK_OPEN}{running_sum(question)}{THINK_CLOSE}{answer(question)}"


def oracle_tokens(question: str) -> int:
    """Tokens of the oracle completion for the embedded model: each tag, each character and EOS is one."""
    return 2 + len(running_sum(question)) + len(answer(question)) + 1


def split_of(question: str) -> str:
    """The side of the split on which a question lies, from its content alone: no size or seed can make them overlap."""
    return "test" if int(content_key(question), 16) < _TEST_SHARE * 2**64 else "train"


def draw_question(rng: random.Random, n_operands: int, max_operand: int) -> str:
    """A question with operands of 1 to `max_operand`, plus and minus equally likely."""
    terms = [str(rng.randint(1, max_operand))]
    terms += [rng.choice("+-") + str(rng.randint(1, max_operand)) for _ in range(n_operands - 1)]
    return "".join(terms) + "="


@dataclass
class ChainSum:
    """The embedded task as a data source.

    Every problem of a split is distinct, and the counts of any two difficulties differ by at most one. The columns of
    a prompt are `difficulty` (operands) and `oracle_tokens` (tokens of `oracle_completion`, with both tags and EOS).

    Attributes:
        train_size: problems of the train split.
        test_size: problems of the test split.
        min_operands: the easiest problems.
        max_operands: the hardest problems.
        max_operand: operands lie in 1..max_operand.
        seed: which problems are drawn; it never moves a problem from one split to the other.
        verifier: name of the verifier for the answers; `exact` wants `</think>` before the answer, where `final_number`
            would take the last partial sum of a chain that never ends for one.

    Raises:
        UserError: a field is out of its range, or `load` is asked for an unknown split.
        DataError: a size asks for more distinct problems of a difficulty than there are.
    """

    train_size: int = 512
    test_size: int = 512
    min_operands: int = 2
    max_operands: int = 6
    max_operand: int = 12
    seed: int = 0
    verifier: str = "exact"

    def __post_init__(self) -> None:
        for name in ("train_size", "test_size", "max_operand"):
            if getattr(self, name) < 1:
                raise UserError(f"ChainSum.{name}={getattr(self, name)} must be at least 1")
        if not 2 <= self.min_operands <= self.max_operands:
            raise UserError(
                f"ChainSum.min_operands={self.min_operands}, max_operands={self.max_operands}: "
                "give 2 <= min_operands <= max_operands"
            )

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"` or `"test"`, difficulties taking turns; the same for the same fields."""
        if split not in _SPLITS:
            raise UserError(f"ChainSum has no split {split!r}; it has {list(_SPLITS)}")
        rng = random.Random(f"{self.seed}/{split}")
        size = self.train_size if split == "train" else self.test_size
        n_levels = self.max_operands - self.min_operands + 1
        levels = [
            self._draw_distinct(rng, split, self.min_operands + level, (size - level + n_levels - 1) // n_levels)
            for level in range(n_levels)
        ]
        questions = [levels[i % n_levels][i // n_levels] for i in range(size)]
        return [Prompt.of(q, answer(q), difficulty=len(operands(q)), oracle_tokens=oracle_tokens(q)) for q in questions]

    def _draw_distinct(self, rng: random.Random, split: str, n_operands: int, count: int) -> list[str]:
        questions: dict[str, None] = {}
        attempts = 0
        while len(questions) < count:
            # Nearly all of a small pool is found within this many draws; more would not end when there are too few.
            if attempts > 1000 + 100 * count:
                raise DataError(
                    f"ChainSum.{split}_size: {count} distinct problems of {n_operands} operands are wanted, about "
                    f"{len(questions)} exist; lower {split}_size or raise max_operand={self.max_operand}"
                )
            question = draw_question(rng, n_operands, self.max_operand)
            attempts += 1
            if split_of(question) == split:
                questions[question] = None
        return list(questions)
