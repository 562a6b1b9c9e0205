"""T1's choice of problems: only those that the model seldom solves before training are trained on."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from concise_rl.batch import COLUMN_PREFIX, RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.errors import DataError, UserError
from concise_rl.methods.contracts import Curriculum, State
from concise_rl.methods.drawing import column_of, count_draws, eligible, least_drawn, share_of, tally


@dataclass
class T1(Curriculum):
    """Keeps the prompts whose pass rate over some samples is at most `maximum`; decided once a prompt.

    Source: arXiv 2501.11651; THUDM/T1. There the supervised model answers each problem 16 times, problems with a pass
    rate of at most 0.3 go into reinforcement learning and the easier ones into supervised tuning.

    With `column` the pass rate stands in the data. Without, it is measured as training goes: every prompt comes until
    `samples` of its rows had a verdict, and then stays or goes for good by

        right <= maximum * sampled        compared exactly

    Those that stay come in epochs: who came least often first, at random among equals.

    State: `right` and `sampled` rows of prompts not yet decided on, the keys of those that are `easy` and `hard`, and
    `drawn` steps of each.

    Attributes:
        maximum: largest pass rate that stays.
        samples: rows that decide, where the pass rate is measured.
        column: the dataset column with each prompt's pass rate, 0 to 1; None: measure it.

    Raises:
        UserError: a number out of its range, when built.
        DataError: a prompt without the column, or with no share in it, when drawing.
    """

    maximum: float = 0.3
    samples: int = 16
    column: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.maximum <= 1:
            raise UserError(f"T1.maximum={self.maximum}: a pass rate is from 0 to 1, 0.3 is the paper's")
        if self.samples < 1:
            raise UserError(f"T1.samples={self.samples}: needs at least 1 row to measure a pass rate")

    @property
    def needs(self) -> frozenset[str]:
        """The column, where the data gives the pass rate."""
        return frozenset() if self.column is None else frozenset({COLUMN_PREFIX + self.column})

    def init(self) -> State:
        """Nothing is decided."""
        return {"right": {}, "sampled": {}, "easy": [], "hard": [], "drawn": {}}

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, state: State
    ) -> list[int]:
        """Up to `n` prompts that are hard, or not yet decided on."""
        candidates = eligible(prompts, used, state["easy"])
        if self.column is not None:
            candidates = [index for index in candidates if self._rate(prompts[index]) <= self.maximum]
        return least_drawn(prompts, candidates, n, rng, state["drawn"])

    def observe(self, batch: RolloutBatch, state: State) -> State:
        """The state with the step counted, and what that decides."""
        state = {**state, "drawn": count_draws(state["drawn"], batch)}
        if self.column is not None:
            return state
        easy, hard, maximum = list(state["easy"]), list(state["hard"]), share_of(self.maximum)
        decided = {*easy, *hard}
        for key, (right, sampled) in tally(batch).items():
            if key in decided:
                continue
            right += state["right"].pop(key, 0)
            sampled += state["sampled"].pop(key, 0)
            if sampled >= self.samples:
                (hard if right <= maximum * sampled else easy).append(key)
            else:
                state["right"][key], state["sampled"][key] = right, sampled
        return {**state, "easy": easy, "hard": hard}

    def _rate(self, prompt: Prompt) -> float:
        assert self.column is not None
        value = column_of(prompt, self.column, "T1")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(f"column {self.column!r} of prompt {prompt.id} is {value!r}: a pass rate is from 0 to 1")
        return value
