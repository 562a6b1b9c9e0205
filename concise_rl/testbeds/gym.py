"""Two tasks of reasoning-gym, small enough for the embedded reasoner, each with a teacher of a few lines.

    count_bits      ... of the number 181?      <think>181:1,90,45:2,22,11:3,5:4,2,1:5</think>5
    spell_backward  ... nus): care              <think>1c2a3r4e,4e3r2a1c</think>erac

As on the embedded task, the warm-up repeats the shortest reasoning as needless re-checks. The tasks themselves come
with `pip install 'concise-rl[tasks]'`.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from concise_rl.data.base import Prompt
from concise_rl.data.reasoning_gym_task import ReasoningGym
from concise_rl.testbeds.teacher import Trace, with_rechecks


def halvings(question: str) -> str:
    """The number halved again and again, the odd ones counted: `6,3:1,1:2`."""
    (number,) = map(int, re.findall(r"\d+", question.rpartition(" ")[2]))
    ones, steps = 0, []
    while number:
        ones += number % 2
        steps.append(f"{number}:{ones}" if number % 2 else str(number))
        number //= 2
    return ",".join(steps)


def numbered_letters(question: str) -> str:
    """The letters numbered, there and back: `1s2u3n,3n2u1s`."""
    word = question.rpartition(" ")[2]
    numbered = [f"{place}{letter}" for place, letter in enumerate(word, 1)]
    return "".join(numbered) + "," + "".join(reversed(numbered))


@dataclass(frozen=True)
class Lesson:
    """What is small about a task here, and how its problems are reasoned.

    Attributes:
        settings: the task's own, small enough for a model of a million parameters.
        teach: question to the shortest reasoning that a person would show.
        taught: problems of the train side that the teacher solves.
    """

    settings: Mapping[str, Any]
    teach: Callable[[str], str]
    taught: int


LESSONS = {
    "count_bits": Lesson({"min_n": 1, "max_n": 1023}, halvings, taught=700),
    "spell_backward": Lesson({"min_word_len": 3, "max_word_len": 6}, numbered_letters, taught=4000),
}


@dataclass
class CountBits:
    """`count_bits` to 1023 as a data source, with the column `oracle_tokens`: tokens of the teacher's trace and EOS.

    Attributes:
        size: problems of the train split.
        test_size: problems of the test split.
        seed: of the problems.
        verifier: name of the verifier for the answers.

    Raises:
        UserError, DataError: as `ReasoningGym`.
    """

    size: int = 128
    test_size: int = 256
    seed: int = 0
    verifier: str = "exact"
    task: ClassVar[str] = "count_bits"

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"` or `"test"`; the same for the same fields."""
        lesson = LESSONS[self.task]
        source = ReasoningGym(self.task, self.size, self.test_size, self.seed, dict(lesson.settings), self.verifier)

        def tokens(prompt: Prompt) -> int:
            return 2 + len(lesson.teach(prompt.messages[0]["content"])) + len(prompt.reference) + 1

        return [
            dataclasses.replace(prompt, columns={**prompt.columns, "oracle_tokens": tokens(prompt)})
            for prompt in source.load(split)
        ]


@dataclass
class SpellBackward(CountBits):
    """`spell_backward` of 3 to 6 letters, likewise."""

    task: ClassVar[str] = "spell_backward"


@dataclass
class GymOverthinking:
    """The teacher: its problems in random order, again and again, reasoned and needlessly re-checked.

    Attributes:
        task: key of `LESSONS`.
        recheck_weights: relative frequency of 0, 1, 2, ... re-checks in the traces.
        plain_share: share of the traces, the first ones, that have no re-check.
    """

    task: str
    recheck_weights: list[float] = field(default_factory=lambda: [0.2, 0.35, 0.3, 0.15])
    plain_share: float = 0.5

    def traces(self, n_traces: int, rng: random.Random) -> Iterator[Trace]:
        """Endless traces from the train side."""
        lesson = LESSONS[self.task]
        prompts = ReasoningGym(self.task, lesson.taught, config=dict(lesson.settings)).load("train")

        def solved() -> Iterator[tuple[str, str, str]]:
            while True:
                prompt = rng.choice(prompts)
                question = prompt.messages[0]["content"]
                yield question, lesson.teach(question), prompt.reference

        return with_rechecks(solved(), self.recheck_weights, round(self.plain_share * n_traces), rng)
