"""Conditional advantage: a completion is compared with the half of its group that is longer, or shorter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import zero_where_out
from concise_rl.options import Variant, choose


class Metric(str, Enum):
    """What a group is split by."""

    length = "length"
    entropy = "entropy"


class MuSchedule(str, Enum):
    """How mu moves in training; named by which comparison leads first. See `Canon`."""

    first_intra_later_inter = "first_intra_later_inter"
    first_inter_later_intra = "first_inter_later_intra"
    cosine_first_intra_later_inter = "cosine_first_intra_later_inter"
    cosine_first_inter_later_intra = "cosine_first_inter_later_intra"


@dataclass
class Canon(Advantage):
    """Conditional advantage estimation, CANON (arXiv 2509.23962; biuboomc/CANON @7d6f814).

    The rows of each group that count are split by a metric into a higher and a lower half with mean rewards m_high and
    m_low. Comparing across the halves (inter) pays for the half that does better, comparing inside them (intra) leaves
    the metric out of it; mu mixes the two:

        high:  A = mu * (alpha * r - m_low          + beta) + (1 - mu) * (r - m_high)
        low:   A = mu * (r         - alpha * m_high - beta) + (1 - mu) * (r - m_low)

    alpha < 1 discounts what the higher half earns (eq. 9): with `metric="length"` it presses towards short answers,
    also in groups that are all right, whose credit is then not 0. beta is a constant bonus of the higher half.

    Halves, `variant="paper"`: a row is in the higher half with a share in [0, 1], and its credit is mixed by it. The
    share is 1 or 0 save where the cut falls inside a run of equal metrics or on the middle row of an odd group; there
    the rows share the places left over equally. So the halves are equal for every n, permuting a group permutes its
    credit, mu = 1/2 with alpha = 1 and beta = 0 is Dr.GRPO for every group, a metric that tells nothing (all equal)
    gives Dr.GRPO for any mu, and one row alone gets 0.

    `variant="code"`: stable sort, the higher half takes the extra row of an odd group, ties are cut by their order in
    the batch, and a group of one row is compared with 0 (A = mu * (alpha * r + beta) + (1 - mu) * r). With
    `metric="entropy"` alpha is on the *lower* half: high `r - alpha * m_low`, low `alpha * r - m_high`.

    mu by schedule, with step = `batch.step` + 1 (counted from 1, as in the code) and accuracy over the scorable rows:

        first_intra_later_inter         mu = accuracy        (code: ..._annel as released)
        first_inter_later_intra         mu = 1 - accuracy    (code: ..._annel with its commented line)
        cosine_first_intra_later_inter  mu = 1 - c(0, 0.6)   (code: ..._cosine_restart)
        cosine_first_inter_later_intra  mu = c(0.4, 1)       (code: ..._cosine_restart_r)

    c(low, high) rises as high * (step + 1) / warmup_steps, then falls from high to low along a half cosine in each of
    `cycles` equal cycles of the steps left, and goes on cycling after `schedule_steps`.

    Credit is not divided by the token budget here: the loss `dr_grpo`, which the recipe sets, does that.

    Attributes:
        metric: `length` (sampled tokens) or `entropy` (`mean_entropy`, nats).
        mu: weight of the comparison across halves, 0 to 1; not used when a schedule is set.
        alpha: weight of the higher half's reward in that comparison.
        beta: bonus of the higher half in that comparison, in units of reward.
        schedule: None, or how mu moves.
        schedule_steps, warmup_steps, cycles: shape of the cosine schedules, in optimizer steps.
        variant: `paper` or `code`.

    Raises:
        UserError: a field out of its range.
    """

    metric: Metric = Metric.length
    mu: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0
    schedule: MuSchedule | None = None
    schedule_steps: int = 150
    warmup_steps: int = 30
    cycles: int = 3
    variant: Variant = Variant.paper

    def __post_init__(self) -> None:
        self.metric = choose("Canon.metric", Metric, self.metric)
        self.variant = choose("Canon.variant", Variant, self.variant)
        if self.schedule is not None:
            self.schedule = choose("Canon.schedule", MuSchedule, self.schedule)
        if not 0 <= self.mu <= 1:
            raise UserError(f"Canon.mu={self.mu}: the share of the comparison across halves is from 0 to 1")
        for name in ("alpha", "beta"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"Canon.{name}={getattr(self, name)}: must be a finite number")
        if self.cycles < 1 or self.warmup_steps < 1 or self.schedule_steps - self.warmup_steps < self.cycles:
            raise UserError(
                f"Canon.schedule_steps={self.schedule_steps}: need warmup_steps ({self.warmup_steps}) of at least 1 "
                f"and then at least one step for each of cycles ({self.cycles})"
            )

    @property
    def needs(self) -> frozenset[str]:
        """`mean_entropy` for the entropy metric, nothing for length."""
        return frozenset({"mean_entropy"}) if self.metric is Metric.entropy else frozenset()

    @property
    def across_groups(self) -> bool:
        """Two schedules follow the accuracy of the step."""
        return self.schedule in (MuSchedule.first_intra_later_inter, MuSchedule.first_inter_later_intra)

    @property
    def order_matters(self) -> bool:
        """The released code cuts ties by their order."""
        return self.variant is Variant.code

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N,), from the shaped reward (N,)."""
        reward_PG = batch.by_group(value)
        counts_PG = batch.by_group(batch.counts)
        share_PG = self._share_of_high(batch.by_group(self._metric_of(batch)), counts_PG)
        high_P1 = _weighted_mean(reward_PG, share_PG * counts_PG)
        low_P1 = _weighted_mean(reward_PG, (1 - share_PG) * counts_PG)
        if self.variant is Variant.code:
            alone_P1 = counts_PG.sum(dim=1, keepdim=True) == 1
            high_P1, low_P1 = high_P1.masked_fill(alone_P1, 0), low_P1.masked_fill(alone_P1, 0)
        mu = self.mu_of(batch)
        credit_PG = self._credit(reward_PG, share_PG, high_P1, low_P1, mu)
        return Out(zero_where_out(batch, credit_PG.reshape(-1)), {"canon/mu": mu})

    def mu_of(self, batch: RolloutBatch) -> float:
        """The weight of the comparison across halves that this batch gets."""
        if self.schedule is None:
            return self.mu
        if self.schedule is MuSchedule.cosine_first_intra_later_inter:
            return 1 - self._cosine(batch.step + 1, lowest=0.0, highest=0.6)
        if self.schedule is MuSchedule.cosine_first_inter_later_intra:
            return self._cosine(batch.step + 1, lowest=0.4, highest=1.0)
        # The verdicts, not the reward: equal where the reward is 0 or 1, and within [0, 1] when a shaper has moved it.
        correct = batch.correct[batch.counts]
        accuracy = float(correct.to(torch.float64).mean()) if correct.numel() else 0.0
        return accuracy if self.schedule is MuSchedule.first_intra_later_inter else 1 - accuracy

    def _cosine(self, step: int, *, lowest: float, highest: float) -> float:
        if step < self.warmup_steps:
            return highest * (step + 1) / self.warmup_steps
        period = (self.schedule_steps - self.warmup_steps) // self.cycles
        phase = ((step - self.warmup_steps) % period) / period
        return lowest + (highest - lowest) * (1 + math.cos(math.pi * phase)) / 2

    def _metric_of(self, batch: RolloutBatch) -> Tensor:
        if self.metric is Metric.length:
            return batch.lengths
        if batch.mean_entropy is None:
            raise UserError(
                "Canon.metric=entropy reads RolloutBatch.mean_entropy, which is None: fill it, or use metric=length"
            )
        return batch.mean_entropy

    def _share_of_high(self, metric_PG: Tensor, counts_PG: Tensor) -> Tensor:
        """How much of each scorable row belongs to the higher half, (P, G), in [0, 1]."""
        mine_PG1, other_P1G = metric_PG[:, :, None], metric_PG[:, None, :]
        counted_P1G = counts_PG[:, None, :]
        below_PG = ((other_P1G < mine_PG1) & counted_P1G).sum(dim=2)
        tied_PGG = (other_P1G == mine_PG1) & counted_P1G
        n_P1 = counts_PG.sum(dim=1, keepdim=True)
        if self.variant is Variant.code:
            tied_before_PG = torch.tril(tied_PGG, diagonal=-1).sum(dim=2)
            return (below_PG + tied_before_PG >= n_P1 // 2).to(torch.float64)
        tied_PG = tied_PGG.sum(dim=2).clamp(min=1)
        return ((below_PG + tied_PG - n_P1.to(torch.float64) / 2) / tied_PG).clamp(0, 1)

    def _credit(self, reward_PG: Tensor, share_PG: Tensor, high_P1: Tensor, low_P1: Tensor, mu: float) -> Tensor:
        on_low = self.variant is Variant.code and self.metric is Metric.entropy
        alpha_high, alpha_low = (1.0, self.alpha) if on_low else (self.alpha, 1.0)
        inter_high_PG = alpha_high * reward_PG - alpha_low * low_P1 + self.beta
        inter_low_PG = alpha_low * reward_PG - alpha_high * high_P1 - self.beta
        inter_PG = share_PG * inter_high_PG + (1 - share_PG) * inter_low_PG
        intra_PG = reward_PG - share_PG * high_P1 - (1 - share_PG) * low_P1
        return mu * inter_PG + (1 - mu) * intra_PG


def _weighted_mean(values_PG: Tensor, weights_PG: Tensor) -> Tensor:
    """Mean by weight in each group, (P, 1); 0 where no weight stands."""
    total_P1 = weights_PG.sum(dim=1, keepdim=True)
    sums_P1 = (values_PG * weights_PG).sum(dim=1, keepdim=True)
    return torch.where(total_P1 > 0, sums_P1 / total_P1.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
