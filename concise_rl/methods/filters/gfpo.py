"""GFPO: of many completions only the shortest, or those that earn most per token, teach."""

from __future__ import annotations

import bisect
import warnings
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Filter, State
from concise_rl.methods.statistics import group_mean
from concise_rl.options import choose


class Metric(str, Enum):
    """What the kept rows are best at."""

    shortest = "shortest"
    token_efficiency = "token_efficiency"


@dataclass
class Gfpo(Filter):
    """Keeps k rows of each group and leaves the others out of means, loss and denominators.

    Group Filtered Policy Optimization, arXiv 2508.09726; no code is published. Oversampling pays for it: with
    `num_generations` no larger than k nothing is left out.

        shortest          the k smallest lengths
        token_efficiency  the k largest task rewards a token, r / max(1, L)

    Right and wrong rows compete alike, ties go to the earlier row, and a group with at most k rows that count keeps
    them all. Rewards are those before shaping. A negative reward is best when long under `token_efficiency`; it warns.

    `adaptive` chooses k by how hard the prompt is. Prompt by prompt, in the order of the batch, the group's mean task
    reward mu enters the stream of all means ever seen, then q25, q50, q75 are the stream's quantiles (exact, between
    neighbours in a straight line) and

        mu < q25: k_very_hard    mu < q50: k_hard    mu < q75: k_medium    else k_easy

    and k while the stream holds fewer than `ready_after` means, that of this group included. Groups in which no row
    counts have no mean. State, where adaptive: the means in ascending order.

    Attributes:
        metric: `shortest` or `token_efficiency`.
        k: rows kept, at least 1.
        adaptive: k follows the difficulty.
        k_very_hard, k_hard, k_medium, k_easy: rows kept by difficulty, 8, 8, 6 and 4 in the paper.
        ready_after: means seen before difficulty counts; the paper does not say how many. 64 is one of its steps.

    Raises:
        UserError: unknown metric, or a number out of its range.
    """

    metric: Metric = Metric.shortest
    k: int = 8
    adaptive: bool = False
    k_very_hard: int = 8
    k_hard: int = 8
    k_medium: int = 6
    k_easy: int = 4
    ready_after: int = 64

    def __post_init__(self) -> None:
        self.metric = choose("Gfpo.metric", Metric, self.metric)
        for name in ("k", "k_very_hard", "k_hard", "k_medium", "k_easy"):
            if getattr(self, name) < 1:
                raise UserError(f"Gfpo.{name}={getattr(self, name)}: keep at least 1 row of a group")
        if self.ready_after < 0:
            raise UserError(f"Gfpo.ready_after={self.ready_after}: must be 0 or more")

    def init(self) -> State:
        """No mean has been seen."""
        return {"means": []} if self.adaptive else None

    def __call__(self, batch: RolloutBatch, state: State) -> tuple[Tensor, State]:
        """(N,) bool, the rows kept; the state with this step's means in it."""
        means = list(state["means"]) if self.adaptive else []
        rank_N = self._rank(batch)
        keep_PG = torch.zeros(batch.n_prompts, batch.group_size, dtype=torch.bool)
        means_P = batch.by_group(group_mean(batch, batch.task_reward))[:, 0].tolist()
        groups = zip(batch.by_group(batch.counts), batch.by_group(rank_N), means_P, strict=True)
        for p, (counts_G, rank_G, mean) in enumerate(groups):
            rows = counts_G.nonzero().flatten()
            if rows.numel():
                k = self._k(mean, means) if self.adaptive else self.k
                keep_PG[p, rows[torch.argsort(rank_G[rows], stable=True)[:k]]] = True
        return keep_PG.reshape(-1), {"means": means} if self.adaptive else state

    def _rank(self, batch: RolloutBatch) -> Tensor:
        """What the kept rows have least of, (N,) float64."""
        lengths_N = batch.lengths.to(torch.float64)
        if self.metric is Metric.shortest:
            return lengths_N
        if bool((batch.task_reward[batch.counts] < 0).any()):
            warnings.warn(
                "filter.gfpo with metric=token_efficiency saw a negative reward: the longest such row ranks best; "
                "use rewards of 0 or more",
                stacklevel=2,
            )
        return -batch.task_reward / lengths_N.clamp(min=1.0)

    def _k(self, mean: float, means: list[float]) -> int:
        """Rows kept of a group with this mean reward, which joins the stream first."""
        bisect.insort(means, mean)
        if len(means) < self.ready_after:
            return self.k
        quartiles = np.quantile(means, [0.25, 0.5, 0.75])
        by_difficulty = (self.k_very_hard, self.k_hard, self.k_medium, self.k_easy)
        return by_difficulty[int(np.searchsorted(quartiles, mean, side="right"))]
