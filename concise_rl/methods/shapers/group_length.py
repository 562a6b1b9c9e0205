"""GRLC: thought and answer each ranked by length within the group, with a bonus for the shortest good one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_count, group_max, group_mean, group_min, mean_where
from concise_rl.options import Variant, choose


@dataclass
class GroupLength(Shaper):
    """Adds a zero-mean weight by length, and a bonus to the shortest row if its reward is among the group's best.

    For the thought (x = K) and for the answer (x = L - K) of the rows of a group that count, right and wrong:

        w = 1 - (x - min) / (max - min), minus its group mean;  0 where all are equal
        reward += lam_think * w_think + lam_answer * w_answer
        the first row with the shortest thought:  += bonus_think   if its reward as it came reaches the gate
        the first row with the shortest answer:   += bonus_answer  if its reward as it came reaches the gate

    The gate is the 80th percentile (linear) of the group's rewards as they came. If the shortest row is below it,
    nobody gets the bonus. `variant="code"`: the gate is the reward at place max(0, int(0.2 n) - 1) in descending order,
    rows with an empty part do not compete for its bonus, and the answer's test sees the thought's bonus. One row alone
    is unchanged.

    Wrong rows are ranked too: in a group of wrong answers the short ones win.

    Source: Nemotron 3 Nano, arXiv 2512.20848; NVIDIA-NeMo/Gym (genrm_compare), which counts characters. Here K and L
    are sampled tokens.

    Attributes:
        lam_think, lam_answer: weights of the ranking.
        bonus_think, bonus_answer: reward of the shortest.
        variant: `paper` or `code`, see above.

    Raises:
        UserError: a field is negative or not finite.
    """

    lam_think: float = 0.5
    lam_answer: float = 0.5
    bonus_think: float = 0.5
    bonus_answer: float = 0.5
    variant: Variant = Variant.paper

    def __post_init__(self) -> None:
        self.variant = choose("GroupLength.variant", Variant, self.variant)
        for name in ("lam_think", "lam_answer", "bonus_think", "bonus_answer"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"GroupLength.{name}={getattr(self, name)}: must be 0 or more; below 0 length is paid")

    @property
    def order_matters(self) -> bool:
        """Of rows that are equally short, the first gets the bonus."""
        return True

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,) with weights and bonuses."""
        thought_N = batch.think_lengths.double()
        answer_N = (batch.lengths - batch.think_lengths).double()
        gate_N, base_N = self._gate(batch, value), value
        bonus_N = torch.zeros_like(value)
        for part_N, bonus in ((thought_N, self.bonus_think), (answer_N, self.bonus_answer)):
            gained_N = bonus * (self._shortest(batch, part_N) & (base_N >= gate_N)).double()
            bonus_N = bonus_N + gained_N
            base_N = base_N + gained_N if self.variant is Variant.code else base_N
        ranked_N = self.lam_think * _weight(batch, thought_N) + self.lam_answer * _weight(batch, answer_N)
        several_N = batch.counts & (group_count(batch) > 1)
        metrics = {
            "group_length/bonus_frac": mean_where(bonus_N > 0, several_N),
            "group_length/gate_mean": mean_where(gate_N, several_N),
        }
        return Out(torch.where(several_N, value + ranked_N + bonus_N, value), metrics)

    def _shortest(self, batch: RolloutBatch, part_N: Tensor) -> Tensor:
        """The first row of each group whose part is the shortest, (N,) bool; none in a group where nobody competes."""
        competes_N = batch.counts & (part_N > 0) if self.variant is Variant.code else batch.counts
        ties_PG = batch.by_group(competes_N & (part_N == group_min(batch, part_N, competes_N)))
        return (ties_PG & (ties_PG.cumsum(dim=1) == 1)).reshape(-1)

    def _gate(self, batch: RolloutBatch, value: Tensor) -> Tensor:
        """The least reward that a bonus asks for, (N,)."""
        sorted_PG = torch.where(batch.by_group(batch.counts), batch.by_group(value), math.inf).sort(dim=1).values
        n_P = batch.by_group(batch.counts).sum(dim=1)
        if self.variant is Variant.code:
            below_P, share_P = n_P - 1 - (n_P // 5 - 1).clamp(min=0), torch.zeros_like(value[: batch.n_prompts])
        else:  # place 0.8 (n - 1) in ascending order, in whole fifths: a percentile that is a row's reward is exact
            fifths_P = 4 * (n_P - 1)
            below_P, share_P = fifths_P // 5, (fifths_P % 5) / 5.0
        low_P1 = sorted_PG.gather(1, below_P.clamp(min=0)[:, None])
        high_P1 = sorted_PG.gather(1, torch.minimum(below_P + 1, n_P - 1).clamp(min=0)[:, None])
        gate_P = (low_P1 + (high_P1 - low_P1) * share_P[:, None])[:, 0]
        return batch.per_row(torch.where(n_P > 0, gate_P, 0.0))


def _weight(batch: RolloutBatch, part_N: Tensor) -> Tensor:
    """w (N,): 1 at the shortest, 0 at the longest, minus the group's mean."""
    shortest_N, longest_N = group_min(batch, part_N), group_max(batch, part_N)
    varies_N = longest_N > shortest_N
    raw_N = torch.where(varies_N, 1 - (part_N - shortest_N) / torch.where(varies_N, longest_N - shortest_N, 1.0), 0.0)
    return raw_N - group_mean(batch, raw_N)
