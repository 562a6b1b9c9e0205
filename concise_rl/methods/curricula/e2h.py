"""E2H: the share of each level of difficulty moves from easy to hard over the run."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from concise_rl.batch import COLUMN_PREFIX, RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Curriculum, State
from concise_rl.methods.drawing import column_of, eligible, place
from concise_rl.options import choose

AROUND = 2**64
STEPS = 1600
"""Of the released countdown run."""


class Kind(str, Enum):
    """How the shares of the levels move. See `E2h`."""

    cosine = "cosine"
    gaussian = "gaussian"
    classic = "classic"
    balanced = "balanced"


@dataclass
class E2h(Curriculum):
    """Easy to hard: every prompt slot draws a level, and the levels' chances depend on the step t of T.

    Source: arXiv 2506.06632; divelab/E2H-Reasoning @381e500. K levels i = 0 .. K - 1, D = K (K + 1) / 2:

        cosine     a = (1 + cos(pi t/T)) / 2,  p_i = a (K - i)/D + (1 - a) (i + 1)/D, at least pmin, then normalised
        gaussian   mu = (t/T)^m (K - 1),  q_i ~ exp(-(i - mu)^2 / (2 s^2)),  p_i = pmin + (1 - K pmin) q_i
        classic    the level min(int(t K / T), K - 1) alone
        balanced   1 / K

    `pmin` true is 1 / D, false is 0. Levels are the distinct values of a dataset column in ascending order. In a level
    prompts go round in one seeded order, and a pointer says how far, so none comes twice before all came once. A level
    whose prompts are all used in the step draws no more; where only levels of chance 0 have prompts left, the one next
    to the likeliest level does. t is the step before the batch, held at T
    (one after that of the last batch, so it lags where a generation is trained on in several steps).

    State: `t`, and each level's pointer. The released code saves neither.

    Attributes:
        kind: `cosine`, `gaussian`, `classic` or `balanced`.
        T: steps of the whole course; None: 1600, as in the released countdown run.
        m: gaussian: exponent of the time, below 1 hurries to the hard levels.
        s: gaussian: width in levels.
        pmin: least chance of a level, for cosine and gaussian.
        column: the dataset column with the level.
        seed: of the order within a level.

    Raises:
        UserError: a number out of its range, when built; K * pmin above 1, when drawing.
        DataError: a prompt without the column.
    """

    kind: Kind = Kind.gaussian
    T: int | None = None
    m: float = 0.5
    s: float = 0.5
    pmin: bool | float = True
    column: str = "level"
    seed: int = 0

    def __post_init__(self) -> None:
        self.kind = choose("E2h.kind", Kind, self.kind)
        if self.T is not None and self.T < 1:
            raise UserError(f"E2h.T={self.T}: the course has at least 1 step")
        for name in ("m", "s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(f"E2h.{name}={getattr(self, name)}: must be positive, 0.5 is the released code's")
        if not 0 <= self.pmin <= 1:
            raise UserError(f"E2h.pmin={self.pmin}: the least chance of a level is from 0 to 1, or true for 1 / D")

    @property
    def needs(self) -> frozenset[str]:
        """The column with the level."""
        return frozenset({COLUMN_PREFIX + self.column})

    def init(self) -> State:
        """Step 0, every level at its start."""
        return {"t": 0, "pointers": {}}

    def probabilities(self, t: int, K: int) -> list[float]:
        """The chance of each of K levels at step t.

        Raises:
            UserError: K * pmin is above 1.
        """
        done, total = min(t / (self.T or STEPS), 1.0), K * (K + 1) / 2
        least = (1 / total if self.pmin else 0.0) if isinstance(self.pmin, bool) else self.pmin
        if K * least > 1:
            raise UserError(f"E2h.pmin={self.pmin} with {K} levels: K * pmin is above 1, use at most {1 / K:.3g}")
        if self.kind is Kind.balanced:
            return [1 / K] * K
        if self.kind is Kind.classic:
            return [float(level == min(int(done * K), K - 1)) for level in range(K)]
        if self.kind is Kind.cosine:
            a = (1 + math.cos(math.pi * done)) / 2
            floored = [max(a * (K - i) / total + (1 - a) * (i + 1) / total, least) for i in range(K)]
            return [p / sum(floored) for p in floored]
        mu = done**self.m * (K - 1)
        exponents = [-((i - mu) ** 2) / (2 * self.s**2) for i in range(K)]
        q = [math.exp(exponent - max(exponents)) for exponent in exponents]  # the largest is 1, so the sum is not 0
        return [least + (1 - K * least) * x / sum(q) for x in q]

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, state: State
    ) -> list[int]:
        """Up to `n` prompts, level by level drawn."""
        levels = sorted({column_of(prompt, self.column, "E2h") for prompt in prompts})
        chances = self.probabilities(state["t"], max(len(levels), 1))
        queues: list[list[int]] = [[] for _ in levels]
        for index in eligible(prompts, used):
            queues[levels.index(prompts[index].columns[self.column])].append(index)
        for level, queue in zip(levels, queues, strict=True):
            pointer = state["pointers"].get(str(level), 0)
            ahead = {index: self._ahead(prompts[index].id, pointer) for index in queue}
            queue.sort(key=ahead.__getitem__, reverse=True)
        drawn: list[int] = []
        while len(drawn) < n and any(queues):
            drawn.append(queues[_level(chances, queues, rng)].pop())
        return drawn

    def observe(self, batch: RolloutBatch, state: State) -> State:
        """The state after the step: each level's pointer at the farthest of its prompts."""
        pointers: dict[str, int] = dict(state["pointers"])
        reached: dict[str, int] = {}
        for key, level in zip(batch.prompt_keys, batch.column(self.column), strict=True):
            ahead = self._ahead(key, pointers.get(str(level), 0))
            reached[str(level)] = max(reached.get(str(level), 0), ahead)
        for level, ahead in reached.items():
            pointers[level] = (pointers.get(level, 0) + ahead) % AROUND
        return {"t": batch.step + 1, "pointers": pointers}

    def _ahead(self, key: str, pointer: int) -> int:
        """How far ahead of the pointer a prompt stands on the ring, 1 to 2**64: the one it points at is farthest."""
        return (place(self.seed, key) - pointer - 1) % AROUND + 1


def _level(chances: Sequence[float], queues: Sequence[Sequence[Any]], rng: random.Random) -> int:
    """A level that has prompts, by chance; where those have none, the one next to the likeliest, the easier first."""
    weights = [chance if queue else 0.0 for chance, queue in zip(chances, queues, strict=True)]
    if sum(weights) > 0:
        return rng.choices(range(len(weights)), weights)[0]
    likeliest = max(range(len(chances)), key=chances.__getitem__)
    return min(
        (level for level, queue in enumerate(queues) if queue), key=lambda level: (abs(level - likeliest), level)
    )
