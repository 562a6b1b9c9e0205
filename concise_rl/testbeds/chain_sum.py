"""The embedded task: sums of two to six digits, whose shortest correct reasoning is known.

    question             7a+4b-3c+9=
    oracle completion    <think>7a+4=11b-3=8c+9=17</think>17

The operations are lettered, so that a model of one million parameters finds the next one by its letter instead of by
counting; partial sums never fall below 0.

Difficulty is the number of operands. The oracle is one running sum without repetition, so how far a policy is from the
fewest tokens that still show the reasoning can be measured on every problem.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, zip_longest

from concise_rl.data.base import Prompt, content_key
from concise_rl.errors import DataError, UserError
from concise_rl.testbeds.teacher import THINK_CLOSE, THINK_OPEN, Trace, with_rechecks

LETTERS = string.ascii_lowercase
"""Names of the operations of a chain, in order."""

_TEST_SHARE = 0.5  # a constant, not a field: two configurations must agree on which side of the split a question lies
_SPLITS = ("train", "test")


def operands(question: str) -> list[int]:
    """The signed operands of a question: `7a+4b-3=` gives `[7, 4, -3]`, whatever an edit put behind it."""
    return [int(term) for term in re.findall(r"[+-]?\d+", question.partition("=")[0])]


def answer(question: str) -> str:
    """The right answer, as written after `</think>`."""
    return str(sum(operands(question)))


def running_sum(question: str) -> str:
    """The chain of partial sums, `7a+4=11b-3=8`: the least that shows the reasoning."""
    total, *rest = operands(question)
    chain = str(total)
    for letter, term in zip(LETTERS, rest, strict=False):
        total += term
        chain += f"{letter}{term:+d}={total}"
    return chain


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
    """A question with distinct operands of 1 to `max_operand` whose partial sums are never negative.

    Lettered and distinct, so that the next operation can be found by what precedes it: a small model that has to count
    instead takes far longer to learn that than the sums themselves.
    """
    unused = set(range(1, max_operand + 1))
    total = rng.randint(1, max_operand)
    question = str(total)
    unused.remove(total)
    for letter in LETTERS[: n_operands - 1]:
        term = rng.choice([sign * size for size in sorted(unused) for sign in (1, -1) if total + sign * size >= 0])
        unused.remove(abs(term))
        total += term
        question += f"{letter}{term:+d}"
    return question + "="


@dataclass
class ChainSum:
    """The embedded task as a data source.

    Every problem of a split is distinct. Difficulties take turns, and one whose problems are used up is passed over: of
    two different digits there are 108 sums, about half on either side of the split, which all stand in a split of 512
    beside about 112 of each other difficulty. The columns of a prompt are `difficulty` (operands) and `oracle_tokens`
    (tokens of `oracle_completion`, with both tags and EOS).

    Attributes:
        train_size: problems of the train split.
        test_size: problems of the test split.
        min_operands: the easiest problems.
        max_operands: the hardest problems.
        max_operand: the operands of a problem are distinct numbers of 1..max_operand.
        seed: which problems are drawn; it never moves a problem from one split to the other.
        verifier: name of the verifier for the answers; `exact` wants `</think>` before the answer, where `final_number`
            would take the last partial sum of a chain that never ends for one.

    Raises:
        UserError: a field is out of its range, or `load` is asked for an unknown split.
        DataError: a size asks for more distinct problems than there are.
    """

    train_size: int = 128
    test_size: int = 512
    min_operands: int = 2
    max_operands: int = 6
    max_operand: int = 9
    seed: int = 0
    verifier: str = "exact"

    def __post_init__(self) -> None:
        for name in ("train_size", "test_size"):
            if getattr(self, name) < 1:
                raise UserError(f"ChainSum.{name}={getattr(self, name)} must be at least 1")
        if not 2 <= self.min_operands <= self.max_operands:
            raise UserError(
                f"ChainSum.min_operands={self.min_operands}, max_operands={self.max_operands}: "
                "give 2 <= min_operands <= max_operands"
            )

        if self.max_operand < self.max_operands:
            raise UserError(
                f"ChainSum.max_operand={self.max_operand} must be at least max_operands={self.max_operands}: "
                "the operands of a problem are distinct"
            )

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"` or `"test"`, difficulties taking turns; the same for the same fields."""
        if split not in _SPLITS:
            raise UserError(f"ChainSum has no split {split!r}; it has {list(_SPLITS)}")
        rng = random.Random(f"{self.seed}/{split}")
        size = self.train_size if split == "train" else self.test_size
        levels = [
            self._draw_distinct(rng, split, n_operands, size)
            for n_operands in range(self.min_operands, self.max_operands + 1)
        ]
        takes_turns = (q for turn in zip_longest(*levels) for q in turn if q is not None)
        questions = list(islice(takes_turns, size))
        if len(questions) < size:
            raise DataError(
                f"ChainSum.{split}_size={size}: only {len(questions)} distinct problems exist; lower it, or raise "
                f"max_operands={self.max_operands} or max_operand={self.max_operand}"
            )
        return [Prompt.of(q, answer(q), difficulty=len(operands(q)), oracle_tokens=oracle_tokens(q)) for q in questions]

    def _draw_distinct(self, rng: random.Random, split: str, n_operands: int, most: int) -> list[str]:
        """At most `most` distinct questions of a split; fewer, nearly all there are, from a pool that is smaller."""
        questions: dict[str, None] = {}
        for _ in range(1000 + 10 * most):
            question = draw_question(rng, n_operands, self.max_operand)
            if split_of(question) == split:
                questions[question] = None
            if len(questions) == most:
                break
        return list(questions)


@dataclass
class Overthinking:
    """The teacher of the embedded task: the chain of partial sums, needless re-checks of it, the answer.

        7a+4b-3=  <think>7a+4=11b-3=8;wait,7a+4=11b-3=8</think>8

    The answer is right after any number of re-checks, so nothing but habit speaks for the long ones: what a
    length-aware method has to unlearn, at no cost in accuracy.

    Attributes:
        min_operands, max_operands: the difficulties, equally likely.
        max_operand: of an operand.
        recheck_weights: relative frequency of 0, 1, 2, ... re-checks in the traces.
        plain_share: share of the traces, the first ones, that have no re-check: the arithmetic is what takes long to
            learn, and it is learnt on the shortest sequences; the habit of re-checking is then quickly acquired.

    Raises:
        UserError: a field is out of its range.
    """

    min_operands: int = 2
    max_operands: int = 6
    max_operand: int = 9
    recheck_weights: list[float] = field(default_factory=lambda: [0.2, 0.35, 0.3, 0.15])
    plain_share: float = 0.5

    def __post_init__(self) -> None:
        if not self.recheck_weights or min(self.recheck_weights) < 0 or sum(self.recheck_weights) <= 0:
            raise UserError(f"Overthinking.recheck_weights={self.recheck_weights} must be >= 0 and not all 0")
        if not 0 <= self.plain_share <= 1:
            raise UserError(f"Overthinking.plain_share={self.plain_share} must lie in 0..1")

    def traces(self, n_traces: int, rng: random.Random) -> Iterator[Trace]:
        """Endless traces from the train side."""

        def solved() -> Iterator[tuple[str, str, str]]:
            while True:
                question = draw_question(rng, rng.randint(self.min_operands, self.max_operands), self.max_operand)
                if split_of(question) == "train":
                    yield question, running_sum(question), answer(question)

        return with_rechecks(solved(), self.recheck_weights, round(self.plain_share * n_traces), rng)
