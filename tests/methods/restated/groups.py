"""Random groups as plain rows, and plain statistics of them: lists and `statistics`, no tensors."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass, field
from typing import Any

from concise_rl.batch import RolloutBatch

LIMIT = 2000


@dataclass
class Row:
    """One completion: L sampled tokens, K of thought; c right, ok scorable, cut truncated; r the reward handed in."""

    L: int
    K: int
    c: int
    ok: bool
    cut: bool
    r: float
    parts: dict[str, float] = field(default_factory=dict)


Group = list[Row]


def groups_of(seed: int, size: int = 6, n: int = 5, *, parts: tuple[str, ...] = ()) -> list[Group]:
    """Groups of every kind: mixed, all right, all wrong, one scorable row, none, and with few distinct lengths."""
    rng = random.Random(seed)

    def row(chance: float, judged: float, lengths: list[int]) -> Row:
        L = rng.choice(lengths)
        c = int(rng.random() < chance)
        own = {name: draw(name, rng) for name in parts}
        return Row(L, rng.randint(0, L), c, rng.random() < judged, L == LIMIT, float(c), own)

    found = []
    for _ in range(n):
        kind = rng.choice(["mixed", "mixed", "mixed", "right", "wrong", "one", "none", "even"])
        lengths = [rng.randint(1, LIMIT) for _ in range(rng.choice([1, 2, size]))] + [LIMIT] * (kind == "mixed")
        chance = {"right": 1.0, "wrong": 0.0}.get(kind, 0.6)
        judged = {"one": 0.0, "none": 0.0, "even": 1.0}.get(kind, 0.85)
        group = [row(chance, judged, lengths) for _ in range(size)]
        if kind == "one":
            group[rng.randrange(size)].ok = True
        found.append(group)
    return found


def draw(name: str, rng: random.Random) -> float:
    """A row value as a verifier gives it."""
    if name == "reflections":
        return float(rng.choice([0, 3, 40, 41, 80, 81, 120]))
    if name == "label":
        return float(rng.choice([1, -1, 0]))
    if name in ("input_tokens", "turns"):
        return float(rng.randint(1, 900 if name == "input_tokens" else 5))
    return float(rng.random() < 0.3)


def batch_of(groups: list[Group], step: int = 0, keys: list[str] | None = None, **columns: Any) -> RolloutBatch:
    rows = [row for group in groups for row in group]
    return RolloutBatch.of(
        prompt_keys=keys or [f"p{p}" for p in range(len(groups))],
        group_size=len(groups[0]),
        step=step,
        lengths=[row.L for row in rows],
        limits=[LIMIT] * len(rows),
        think_lengths=[row.K for row in rows],
        truncated=[row.cut for row in rows],
        correct=[bool(row.c) for row in rows],
        scorable=[row.ok for row in rows],
        task_reward=[row.r for row in rows],
        parts={name: [row.parts[name] for row in rows] for name in rows[0].parts},
        columns=columns,
    )


# -- plain statistics ----------------------------------------------------------------------------------------------


def sg(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def pd(xs: list[float]) -> float:
    return statistics.pstdev(xs) if xs else 0.0


def sd(xs: list[float]) -> float:
    return statistics.stdev(xs) if len(xs) > 1 else 0.0


def percentile(xs: list[float], share: float) -> float:
    """Between neighbours in a straight line."""
    ordered = sorted(xs)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def scorable(group: Group) -> Group:
    return [row for row in group if row.ok]


def right(group: Group) -> Group:
    return [row for row in group if row.ok and row.c]


def rate(group: Group) -> float:
    known = scorable(group)
    return statistics.fmean(row.c for row in known) if known else 0.0
