"""Tiny reasoners for two tasks of reasoning-gym, each warmed up on traces that overthink, as the embedded one is.

    python benchmarks/reasoners.py --out runs/methods/reasoners            # both, some minutes each on one core
    concise-rl train model=tiny model.path=runs/methods/reasoners/count_bits data=reasoning_gym data.task=count_bits ...

A teacher reads a question of its task and writes the shortest reasoning that leads to the answer step by step; the
warm-up repeats it as needless re-checks. `benchmarks/methods.py` makes a reasoner where its runs folder has none.

    count_bits      ... of the number 181?      <think>181:1,90,45:2,22,11:3,5:4,2,1:5</think>5
    spell_backward  ... sun -> nus): care       <think>1c2a3r4e,4e3r2a1c</think>erac
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from concise_rl.assets import TINY
from concise_rl.data import ReasoningGym
from concise_rl.errors import UserError
from concise_rl.testbeds.warmup import Trace, WarmupConfig, run_warmup, with_rechecks

TRAIN_SIZE, TEST_SIZE = 128, 256


@dataclass(frozen=True)
class Reasoner:
    """A task, the teacher of its traces, and how long they are learnt.

    Attributes:
        task: name in reasoning-gym.
        settings: the task's own, small enough for a model of a million parameters.
        teach: question to the shortest reasoning that a person would show.
        warmup: what differs from `WarmupConfig`: both start from the embedded model, which can look letters up and keep
            sums already.
        taught: problems of the train side that the teacher solves.
        max_completion_tokens: limit of a completion in training and evaluation.
        test_size: problems of the evaluation.
    """

    task: str
    settings: Mapping[str, Any]
    teach: Callable[[str], str]
    taught: int
    warmup: Mapping[str, Any] = field(default_factory=lambda: {"steps": 3000, "start": str(TINY)})
    max_completion_tokens: int = 160
    test_size: int = TEST_SIZE

    def data(self, size: int = TRAIN_SIZE) -> ReasoningGym:
        return ReasoningGym(self.task, size=size, test_size=self.test_size, config=dict(self.settings))

    def config(self) -> WarmupConfig:
        return WarmupConfig(data=self.data(), max_new_tokens=2 * self.max_completion_tokens, **self.warmup)

    def traces(self, config: WarmupConfig, rng: random.Random) -> Iterator[Trace]:
        """Problems of the train side in random order, again and again, reasoned by the teacher."""
        prompts = self.data(self.taught).load("train")

        def solved() -> Iterator[tuple[str, str, str]]:
            while True:
                prompt = rng.choice(prompts)
                question = prompt.messages[0]["content"]
                yield question, self.teach(question), prompt.reference

        return with_rechecks(solved(), config, rng)

    def oracle_tokens(self, question: str, answer: str) -> int:
        """Tokens of the shortest trace for a character model: both tags, each character, and EOS."""
        return 2 + len(self.teach(question)) + len(answer) + 1

    def overrides(self, folder: Path) -> list[str]:
        """What `concise-rl train` needs to train this reasoner, warmed up in `folder`, on its task."""
        settings = ", ".join(f"{name}: {value}" for name, value in self.settings.items())
        return [
            "model=tiny",
            f"model.path={folder}",
            "data=reasoning_gym",
            f"data.task={self.task}",
            f"data.size={TRAIN_SIZE}",
            f"data.test_size={self.test_size}",
            f"+data.config={{{settings}}}",
            f"trainer.max_completion_length={self.max_completion_tokens}",
            f"evaluation.problems={self.test_size}",
        ]


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


REASONERS = {
    reasoner.task: reasoner
    for reasoner in (
        Reasoner(
            "count_bits",
            {"min_n": 1, "max_n": 1023},
            halvings,
            taught=700,
        ),
        Reasoner(
            "spell_backward",
            {"min_word_len": 3, "max_word_len": 6},
            numbered_letters,
            taught=4000,
        ),
    )
}


def prepare(reasoner: Reasoner, folder: Path) -> Path:
    """The folder of the warmed-up reasoner, made where it is not there yet."""
    target = folder / reasoner.task
    if not (target / "warmup.json").exists():
        started = time.monotonic()
        metrics = run_warmup(reasoner.config(), target, traces=reasoner.traces)
        print(
            f"{reasoner.task}: {metrics['accuracy']:.1%} right at {metrics['mean_tokens']:.1f} tokens, "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(REASONERS), metavar="task", help=", ".join(REASONERS))
    parser.add_argument("--out", type=Path, default=Path("runs/methods/reasoners"))
    options = parser.parse_args()
    for task in options.tasks:
        if task not in REASONERS:
            raise UserError(f"task={task}: there is a teacher for {', '.join(REASONERS)}")
        prepare(REASONERS[task], options.out)


if __name__ == "__main__":
    main()
