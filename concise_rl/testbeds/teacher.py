"""What a warm-up learns from: traces of a task, written by a teacher whose habits are fields.

A teacher is a plain dataclass, so that the record of a warm-up states every habit. It never looks at the test side, and
its habits never depend on what the right answer is: a policy that has learnt them knows nothing of the truth by them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from concise_rl.data.efforts import WORDS, Level

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

RECHECK = ";wait,"
"""What stands between a chain and its re-check."""

Trace = tuple[str, str]
"""A question and a completion of it (without EOS)."""


class Teacher(Protocol):
    """Writes the traces of a warm-up."""

    def traces(self, n_traces: int, rng: random.Random) -> Iterator[Trace]:
        """Endless traces from the train side; `n_traces` are going to be read, for a share of them to differ."""
        ...


@dataclass
class AtEfforts:
    """Teaches several efforts at once: a question asks for a level in its words, and the level's own teacher answers.

    Attributes:
        teachers: by level; the levels are equally likely.
    """

    teachers: Mapping[Level, Teacher]

    def traces(self, n_traces: int, rng: random.Random) -> Iterator[Trace]:
        """Endless traces from the train side."""
        streams = [
            (WORDS[level], own.traces(n_traces // len(self.teachers), rng)) for level, own in self.teachers.items()
        ]
        while True:
            words, stream = rng.choice(streams)
            question, completion = next(stream)
            yield question + words, completion


def with_rechecks(
    solved: Iterator[tuple[str, str, str]], weights: Sequence[float], n_plain: int, rng: random.Random
) -> Iterator[Trace]:
    """Traces that overthink, from `(question, reasoning, answer)`; the first `n_plain` of them do not.

    Args:
        solved: problems with the shortest reasoning that leads to the answer.
        weights: relative frequency of 0, 1, 2, ... re-checks.
        n_plain: traces without a re-check at the start.
        rng: draws the re-checks.
    """
    counts = range(len(weights))
    for n_traces, (question, reasoning, answered) in enumerate(solved):
        rechecks = rng.choices(counts, weights)[0] if n_traces >= n_plain else 0
        thinking = RECHECK.join([reasoning] * (1 + rechecks))
        yield question, f"{THINK_OPEN}{thinking}{THINK_CLOSE}{answered}"
