"""Test bed S: which of N sums is the number asked for; check them in turn, or guess.

    question              17=a6+4+5b9+8+1c7+1+9?3
    two checks            <think>a6+4=10+5=15nb9+8=17+1=18n</think>c
    a guess               <think></think>a

Options are tried in order. At each point a policy may answer the first option that it has not checked, check it (`y`:
it is right, `n`: it is not), or, after a `y`, check it once more (`wa...y`), which is waste. The level N stands at the
end of the question. The rank of the right option is drawn from a known law p_N, and wrong sums lie near the right one,
so the rank cannot be read off: what a check is worth is known exactly, and with it the best policy (`frontier.py`).
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.testbeds.splits import check_split, draw_distinct, split_of
from concise_rl.testbeds.teacher import THINK_CLOSE, THINK_OPEN, Trace

LETTERS = string.ascii_lowercase
MAX_TERM = 9
NEAR = 6
"""Wrong sums differ from the right one by at most this."""

RANK_LAW: Mapping[int, tuple[float, ...]] = {
    2: (0.99, 0.01),
    3: (0.92, 0.05, 0.03),
    4: (0.70, 0.14, 0.10, 0.06),
    5: (0.45, 0.20, 0.15, 0.12, 0.08),
}
"""Level N to the chance that the right option is the first, second, ..., last."""

_CHECK = r"[a-z]\d\+\d=\d+\+\d=\d+[yn]"
_SHAPE = re.compile(rf"{THINK_OPEN}((?:w?{_CHECK})*){THINK_CLOSE}([a-z])")

Terms = tuple[int, int, int]


@dataclass(frozen=True)
class Behaviour:
    """What a completion did.

    Attributes:
        checks: options checked, the first time.
        waste: further checks of an option checked before.
        guessed: the answer was not checked to be right, and other options than it were open.
        sound: every sum, and every verdict on it, is right, and they are of the first options, in order.
    """

    checks: int
    waste: int
    guessed: bool
    sound: bool


def options(question: str) -> list[Terms]:
    """The terms of the sums, in order."""
    return [tuple(map(int, sum_)) for sum_ in re.findall(r"[a-z](\d)\+(\d)\+(\d)", question)]  # type: ignore[misc]


def target(question: str) -> int:
    """The number asked for."""
    return int(question.partition("=")[0])


def rank(question: str) -> int:
    """The place of the right option, from 0."""
    return [sum(terms) for terms in options(question)].index(target(question))


def check(question: str, place: int) -> str:
    """The text of a check of the option at `place`."""
    x, y, z = options(question)[place]
    verdict = "y" if x + y + z == target(question) else "n"
    return f"{LETTERS[place]}{x}+{y}={x + y}+{z}={x + y + z}{verdict}"


def completion(question: str, most_checks: int, waste: int = 0) -> str:
    """The completion (without EOS) that checks in order until a `y`, but at most `most_checks` options.

    It answers the option found right, else the first that is not checked (the last one, if all are).
    """
    right = rank(question)
    checks = min(most_checks, right + 1, len(options(question)))
    found = right < checks
    text = "".join(check(question, place) for place in range(checks))
    if found:
        text += ("w" + check(question, right)) * waste
    return f"{THINK_OPEN}{text}{THINK_CLOSE}{LETTERS[right if found else checks]}"


def parse(question: str, text: str) -> Behaviour | None:
    """What a completion did; None where it breaks the grammar."""
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        return None
    steps = re.findall(rf"(w?)({_CHECK})", shape[1])
    checked = [step for again, step in steps if not again]
    n = len(options(question))
    sound = len(checked) <= n and all(step == check(question, place) for place, step in enumerate(checked))
    found = [step[0] for step in checked if step.endswith("y")]
    ruled_out = {step[0] for step in checked if step.endswith("n")}
    guessed = shape[2] not in found and len(ruled_out - {shape[2]}) < n - 1
    return Behaviour(len(checked), len(steps) - len(checked), guessed, sound)


def tokens(text: str) -> int:
    """Sampled tokens of a completion, EOS included: the embedded model has one a tag and a character."""
    return len(text) - len(THINK_OPEN) - len(THINK_CLOSE) + 3


def draw_question(rng: random.Random, n_options: int, right: int) -> str:
    """A question of N options whose right one stands at place `right`; wrong sums are within `NEAR` of it."""

    def terms() -> list[int]:
        return [rng.randint(1, MAX_TERM) for _ in range(3)]

    answer = terms()
    asked = sum(answer)
    sums = []
    for place in range(n_options):
        drawn = answer
        while place != right:
            drawn = terms()
            if 0 < abs(sum(drawn) - asked) <= NEAR:
                break
        sums.append(LETTERS[place] + "+".join(map(str, drawn)))
    return f"{asked}={''.join(sums)}?{n_options}"


def stratified(law: Sequence[float], size: int) -> list[int]:
    """`size` ranks in the shares of the law, each count rounded by largest remainders."""
    counts = [int(size * share) for share in law]
    by_remainder = sorted(range(len(law)), key=lambda r: size * law[r] - counts[r], reverse=True)
    for r in by_remainder[: size - sum(counts)]:
        counts[r] += 1
    return [r for r, count in enumerate(counts) for _ in range(count)]


@dataclass
class WhichSum:
    """Test bed S as a data source.

    Columns: `difficulty` (options), `oracle_tokens` (tokens that settle the answer: a check of each option up to the
    right one, the last never), `least_tokens` (a guess), `hard` (the harder half of the levels), `rank` (place of the
    right option from 0), `trap` (the guess is wrong), `testbed`. Ranks stand in the shares of `RANK_LAW`
    exactly, up to rounding.

    Attributes:
        train_size: problems of the train split.
        test_size: problems of the test split.
        law_size: problems of the split `law`.
        seed: which problems are drawn; it never moves a problem from one split to another.
        verifier: name of the verifier for the answers.

    Raises:
        UserError: a size is below 1, or `load` is asked for an unknown split.
    """

    train_size: int = 256
    test_size: int = 512
    law_size: int = 512
    seed: int = 0
    verifier: str = "exact"

    def __post_init__(self) -> None:
        for name in ("train_size", "test_size", "law_size"):
            if getattr(self, name) < 1:
                raise UserError(f"WhichSum.{name}={getattr(self, name)} must be at least 1")

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"`, `"test"` or `"law"`, levels taking turns; the same for the same fields."""
        check_split("WhichSum", split)
        rng = random.Random(f"{self.seed}/{split}")
        size = getattr(self, f"{split}_size")
        by_level = []
        for place, (n, law) in enumerate(RANK_LAW.items()):
            ranks = stratified(law, len(range(place, size, len(RANK_LAW))))
            drawn = [
                question
                for right in range(n)
                for question in draw_distinct(
                    partial(draw_question, rng, n, right),
                    split,
                    ranks.count(right),
                    f"WhichSum level {n}",
                )
            ]
            rng.shuffle(drawn)
            by_level.append(iter(drawn))
        return [_prompt(next(by_level[place % len(by_level)])) for place in range(size)]


def _prompt(question: str) -> Prompt:
    n, right = len(options(question)), rank(question)
    return Prompt.of(
        question,
        LETTERS[right],
        difficulty=n,
        oracle_tokens=tokens(completion(question, n - 1)),
        least_tokens=tokens(completion(question, 0)),
        hard=n > sorted(RANK_LAW)[len(RANK_LAW) // 2 - 1],
        testbed="which_sum",
        rank=right,
        trap=right > 0,
    )


@dataclass
class Checking:
    """The teacher: checks in order, and habits of stopping and of checking again that never depend on the truth.

    Level and rank are uniform: the law of the ranks is for reinforcement learning to find.

    Attributes:
        stop_first: chance of answering before any check, by level in order; of one number, the same for all.
        stop: chance of answering untested before each later option but the last.
        check_last: chance of checking the last option, which is certain by then.
        recheck_weights: relative frequency of 0, 1, 2, ... further checks after a `y`.
        plain_share: share of the traces, the first ones, that check up to the `y` and no further, the last option too.
    """

    stop_first: Sequence[float] = (0.15,)
    stop: float = 0.15
    check_last: float = 0.7
    recheck_weights: Sequence[float] = (0.35, 0.4, 0.25)
    plain_share: float = 0.0

    def traces(self, n_traces: int, rng: random.Random) -> Iterator[Trace]:
        """Endless traces from the train side."""
        n_plain, made = round(self.plain_share * n_traces), 0
        levels = sorted(RANK_LAW)
        while True:
            n = rng.choice(levels)
            question = draw_question(rng, n, rng.randrange(n))
            if split_of(question) != "train":
                continue
            plain = made < n_plain
            most = n if plain else self._most_checks(n, levels.index(n), rng)
            waste = 0 if plain else rng.choices(range(len(self.recheck_weights)), self.recheck_weights)[0]
            yield question, completion(question, most, waste)
            made += 1

    def _most_checks(self, n: int, level: int, rng: random.Random) -> int:
        first = self.stop_first[level % len(self.stop_first)]
        for place in range(n):
            halt = 1 - self.check_last if place == n - 1 else self.stop if place else first
            if rng.random() < halt:
                return place
        return n
