"""AnytimeReasoner's credit: each piece of a chain of thought by what is answered after it, at all budgets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import zero_where_out
from concise_rl.options import choose


class Prior(str, Enum):
    """How likely each budget is: all alike, in proportion to its size, or the last alone."""

    uniform = "uniform"
    linear = "linear"
    base = "base"


@dataclass
class Brpo(Advantage):
    """Budget relative policy optimisation: credit (N, T) from chains that were answered at S budgets.

    A group holds C chains; b_s is the mean score of a chain's answers at budget s, P the prior, both s from 0:

        R_s = sum_{t >= s} P_t b_t
        V1  = (sum_{t < s} 2^t b_t / sum_{t < s} 2^t) * sum_{t >= s} P_t        0 at s = 0
        V2  = mean of R_s over the group's chains                               0 with one chain
        A_s = R_s - (s V1 + (S - s) V2) / S            for the tokens of segment s, up to the tag that ends it
        answer: score - mean score of its siblings     with none: - the group's mean at that budget

    Scores are the reward handed in. The row values `chain` and `segment` say to which chain and budget a row belongs.
    A budget without an answer repeats the score of the one before (a chain that ended early), before the first one
    that of the next. Rows that do not count are in no mean and get 0; the segments that they would have trained get
    no credit. `think_lengths` say where a row's thought ends and where a chain's segments do.

    Source: AnytimeReasoner, arXiv 2505.13438; sail-sg/AnytimeReasoner at 7e3f5bb.

    Attributes:
        S: budgets, as in the sampler.
        prior: `uniform`, `linear` or `base`.

    Raises:
        UserError: S below 1, or another one than the sampler's.
    """

    S: int = 4
    prior: Prior = Prior.uniform
    by_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.prior = choose("Brpo.prior", Prior, self.prior)
        if self.S < 1:
            raise UserError(f"Brpo.S={self.S}: need at least one budget")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"parts.chain", "parts.segment"})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N, T), T so long that the forced tokens of a row fit too."""
        chains, segments = batch.part("chain").long(), batch.part("segment").long()
        budgets = batch.parts.get("budgets", torch.full_like(value, self.S))
        highest = max(int(segments.max()) + 1, int(budgets.max()))
        if highest > self.S or int(budgets.min()) < self.S:
            raise UserError(f"Brpo.S={self.S}: the sampler cut at {highest} budgets; set advantage.brpo.S={highest}")
        tokens = batch.lengths + batch.parts.get("forced", torch.zeros_like(value)).long()
        credit_NT = value.new_zeros(batch.n_rows, max(1, int(tokens.max())))
        for rows in torch.arange(batch.n_rows).split(batch.group_size):
            self._group(batch, value, chains, segments, rows[batch.counts[rows]], credit_NT)
        beyond_NT = torch.arange(credit_NT.shape[1]) >= tokens[:, None]
        return Out(zero_where_out(batch, credit_NT.masked_fill(beyond_NT, 0.0)))

    def _group(
        self, batch: RolloutBatch, value: Tensor, chains: Tensor, segments: Tensor, rows: Tensor, credit_NT: Tensor
    ) -> None:
        """Write the credit of one group's rows that count."""
        found = sorted(set(chains[rows].tolist()))
        if not found:
            return
        scores_CS = torch.stack([self._scores(value, rows[chains[rows] == chain], segments) for chain in found])
        advantages_CS = segment_advantages(scores_CS, self.weights())
        ends = batch.think_lengths
        for c, chain in enumerate(found):
            own = rows[chains[rows] == chain]
            stops = {s: int(ends[own[segments[own] == s]].max()) for s in segments[own].tolist()}
            for row in own.tolist():
                s, start = int(segments[row]), 0
                siblings = own[segments[own] == s]
                if len(siblings) == 1:
                    siblings = rows[segments[rows] == s]
                answer = value[row] - value[siblings].mean() if len(siblings) > 1 else value.new_zeros(())
                credit_NT[row] = answer
                for segment in sorted(k for k in stops if k <= s):
                    stop = (int(ends[row]) if segment == s else stops[segment]) + (segment == s)
                    credit_NT[row, start:stop] = advantages_CS[c, segment]
                    start = max(start, stop)

    def _scores(self, value: Tensor, rows: Tensor, segments: Tensor) -> Tensor:
        """Mean score of a chain at each budget, (S,)."""
        own = {s: value[rows[segments[rows] == s]].mean() for s in segments[rows].tolist()}
        last = own[min(own)]
        return torch.stack([last := own.get(s, last) for s in range(self.S)])

    def weights(self) -> Tensor:
        """P, (S,) float64, with sum 1."""
        kinds = {
            Prior.uniform: torch.ones(self.S, dtype=torch.float64),
            Prior.linear: torch.arange(1, self.S + 1, dtype=torch.float64),
            Prior.base: torch.eye(self.S, dtype=torch.float64)[-1],
        }
        return kinds[self.prior] / kinds[self.prior].sum()


def segment_advantages(scores_CS: Tensor, prior_S: Tensor) -> Tensor:
    """A_s of each chain of a group, (C, S), from its scores at the budgets and their prior; `Brpo` has the formula."""
    n_chains, n_budgets = scores_CS.shape
    s_S = torch.arange(n_budgets, dtype=torch.float64)
    remaining_S = prior_S.flip(0).cumsum(0).flip(0)
    returns_CS = (prior_S * scores_CS).flip(1).cumsum(1).flip(1)
    weights_S = 2.0**s_S
    before_CS = (weights_S * scores_CS).cumsum(1) - weights_S * scores_CS
    total_S = (weights_S.cumsum(0) - weights_S).clamp(min=1)  # 0 at s = 0, where nothing stands before
    v1_CS = before_CS / total_S * remaining_S
    v2_CS = returns_CS.mean(dim=0, keepdim=True) if n_chains > 1 else torch.zeros_like(returns_CS)
    return returns_CS - (s_S * v1_CS + (n_budgets - s_S) * v2_CS) / n_budgets
