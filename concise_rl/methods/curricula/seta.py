"""SeTa: an epoch takes a window of difficulty, and the window slides from easy to hard."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.contracts import State
from concise_rl.methods.drawing import ByEpoch

LEAST_KEPT = 0.1
"""The random part never falls below this share, as in the released code."""


@dataclass
class Seta(ByEpoch):
    """Prompts grouped by how often they fail; each epoch trains on neighbouring groups.

    Source: mrazhou/SeTa @c8db4eb (CVPR 2025). The score of a prompt is 1 - its last pass rate, in place of a loss. In
    every epoch e from 1 on:

        random part   int((1 - prune_ratio) * prompts) of them, at least a tenth, by (seed, epoch)
        groups        k-means of their scores into n groups, ordered by mean
        window        groups start .. start + w - 1,  w = round(n * scale),  start = e mod (n - w + 1)

    and once e + 1 > epochs * delta the random part alone. Epoch 0 has every prompt, so that each has a score of its own
    afterwards. The k-means is the exact one in one dimension, which needs no seed. With fewer distinct scores than
    groups (G rollouts give at most G + 1) the sorted prompts are cut into n contiguous runs; equal scores keep the
    random part's order. A prompt without a score, its rows without a verdict, comes in every epoch.

    State: `epoch`, `seen` in it, `left_out` of it, last `rates`.

    Attributes:
        prune_ratio: share left out at random.
        n: groups.
        scale: of the window, a share of the groups; round to even on a half, as Python does.
        delta: share of the epochs after which only the random part counts.
        epochs: of the run; None: the window never stops sliding.
        seed: of the random part.

    Raises:
        UserError: a number out of its range or an empty window, when built; no more prompts than groups, when drawing.
    """

    prune_ratio: float = 0.0
    n: int = 10
    scale: float = 0.5
    delta: float = 0.875
    epochs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.prune_ratio < 1:
            raise UserError(f"Seta.prune_ratio={self.prune_ratio}: the share left out is at least 0 and below 1")
        if self.n < 1 or not 1 <= round(self.n * self.scale) <= self.n:
            raise UserError(
                f"Seta.scale={self.scale} with n={self.n}: the window is round(n * scale) groups, at least 1 and at "
                "most n"
            )
        if not 0 <= self.delta <= 1:
            raise UserError(f"Seta.delta={self.delta}: the share of the epochs is from 0 to 1")
        if self.epochs is not None and self.epochs < 1:
            raise UserError(f"Seta.epochs={self.epochs}: must be at least 1, or null")

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, state: State
    ) -> list[int]:
        """Up to `n` of the prompts whose turn it is, then of the next epoch."""
        if len(prompts) <= self.n:
            raise UserError(
                f"curriculum.seta.n={self.n} groups of {len(prompts)} prompts: need more prompts than groups"
            )
        return super().draw(prompts, n, used, rng, state)

    def window(self, epoch: int) -> range:
        """The groups of an epoch; all in epoch 0."""
        if epoch == 0:
            return range(self.n)
        width = round(self.n * self.scale)
        start = epoch % (self.n - width + 1)
        return range(start, start + width)

    def left_out(self, rates: Mapping[str, float], epoch: int) -> Collection[str]:
        """The scored prompts outside the random part, or outside the window."""
        if epoch == 0:
            return set()
        keys = sorted(rates)
        size = int(max(LEAST_KEPT, 1 - self.prune_ratio) * len(keys) + 1e-9)
        part = random.Random(f"{self.seed}/{epoch}").sample(keys, size)
        if self.epochs is None or epoch + 1 <= self.epochs * self.delta:
            groups = grouped([1 - rates[key] for key in part], self.n)
            part = [part[index] for group in self.window(epoch) for index in groups[group]]
        return set(keys) - set(part)


def grouped(scores: Sequence[float], n: int) -> list[list[int]]:
    """Indices of the scores in `n` groups, ascending: the k-means with the least sum of squares.

    With fewer distinct scores than groups: contiguous runs of the sorted scores, of sizes that differ by at most one.
    """
    order = np.argsort(np.asarray(scores, np.float64), kind="stable")
    distinct, counts = np.unique(np.asarray(scores, np.float64), return_counts=True)
    if len(distinct) < n:
        return [run.tolist() for run in np.array_split(order, n)]
    cuts = np.concatenate([[0], np.cumsum(counts)])[_boundaries(distinct, counts, n)]
    return [order[first:last].tolist() for first, last in itertools.pairwise(cuts)]


def _boundaries(values_M: np.ndarray, counts_M: np.ndarray, n: int) -> list[int]:
    """Where `n` runs of the ascending distinct values begin, and the end: dynamic programming over the last run."""
    weights = np.concatenate([[0.0], np.cumsum(counts_M)])
    sums = np.concatenate([[0.0], np.cumsum(counts_M * values_M)])
    squares = np.concatenate([[0.0], np.cumsum(counts_M * values_M**2)])
    m = len(values_M)
    cost = np.full(m + 1, np.inf)
    cost[0] = 0.0
    firsts: list[np.ndarray] = []
    for _ in range(n):
        best, first = np.full(m + 1, np.inf), np.zeros(m + 1, dtype=int)
        for end in range(1, m + 1):
            weight, total = weights[end] - weights[:end], sums[end] - sums[:end]
            within = squares[end] - squares[:end] - total**2 / weight
            first[end] = int(np.argmin(cost[:end] + within))
            best[end] = (cost[:end] + within)[first[end]]
        cost, firsts = best, [*firsts, first]
    ends = [m]
    for first in reversed(firsts):
        ends.append(int(first[ends[-1]]))
    return ends[::-1]
