"""SmartThinker: right answers pay for what they are longer than the length at which answers are most often right."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import group_count, group_max, group_mean, group_min, mean_where, pass_rate, right
from concise_rl.options import choose

SAME_VARIANCE = 1e-6
"""Variances that differ by less, in tokens squared, count as equal."""


class Variant(str, Enum):
    """Where the best length lies when right and all answers spread alike: on the derived side, or on the released."""

    derived = "derived"
    code = "code"


@dataclass
class SmartThinker(Shaper):
    """Subtracts from right rewards a penalty for length above an optimum that the group itself tells.

    Lengths of all rows of the group have mean m and population variance v, those of its right rows m_C and v_C. If
    both are normal, the chance to be right given the length has its mode at (v_C m - v m_C) / (v_C - v). So

        opt = min L                 all right, or v_C > v (no mode, right answers spread wider)
              max L                 none right
              min L or max L        v_C and v equal: `derived` min L if m_C < m, else max L; `code` the other way round
              that mode, kept within min L and max L       otherwise

        penalty = L - opt for right rows above opt, else 0
        reward -= alpha * penalty,   alpha = (1 - p) / (max penalty - mean penalty + 1e-6),  0 unless 0 < p < 1

    p is the share of right rows, the mean penalty is over all rows. alpha is chosen so that the right row with the
    largest penalty lands on the group's mean reward, and no right row below it (for outcomes 0 and 1).

    Source: arXiv 2603.08000, SJTU-RTEAS/SmartThinker at e64d877. With equal variances the share of right rows among
    all rises towards the side on which m_C lies; the released code takes the other side.

    Attributes:
        variant: `derived` or `code`, see above.

    Raises:
        UserError: an unknown variant.
    """

    variant: Variant = Variant.derived

    def __post_init__(self) -> None:
        self.variant = choose("SmartThinker.variant", Variant, self.variant)

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Reward (N,), with right rows above the optimum taken down."""
        opt_N, length_N, right_N = self.optimum(batch), batch.lengths.double(), right(batch)
        penalty_N = torch.where(right_N, (length_N - opt_N).clamp(min=0), 0.0)
        p_N = pass_rate(batch)
        room_N = group_max(batch, penalty_N) - group_mean(batch, penalty_N) + 1e-6
        alpha_N = torch.where((p_N > 0) & (p_N < 1), (1 - p_N) / room_N, 0.0)
        metrics = {
            "smart_thinker/optimum_mean": mean_where(opt_N, batch.counts),
            "smart_thinker/penalty_mean": mean_where(alpha_N * penalty_N, right_N),
        }
        return Out(torch.where(right_N, value - alpha_N * penalty_N, value), metrics)

    def optimum(self, batch: RolloutBatch) -> Tensor:
        """The length that a group is pulled to, repeated for its rows, (N,) tokens; 0 where no row counts."""
        mean_N, var_N = _moments(batch, batch.counts)
        mean_C_N, var_C_N = _moments(batch, right(batch))
        gap_N = var_C_N - var_N
        shortest_N, longest_N = group_min(batch, batch.lengths), group_max(batch, batch.lengths)
        mode_N = (var_C_N * mean_N - var_N * mean_C_N) / torch.where(gap_N == 0, 1.0, gap_N)
        # Right rows of one length are their own mode: a rounding error there would be a penalty that alpha enlarges.
        mode_N = torch.where(var_C_N == 0, mean_C_N, mode_N)
        below_N = mean_C_N < mean_N if self.variant is Variant.derived else mean_C_N >= mean_N
        opt_N = torch.where(gap_N > 0, shortest_N, torch.minimum(torch.maximum(mode_N, shortest_N), longest_N))
        opt_N = torch.where(gap_N.abs() < SAME_VARIANCE, torch.where(below_N, shortest_N, longest_N), opt_N)
        n_N, n_right_N = group_count(batch), group_count(batch, batch.correct)
        opt_N = torch.where(n_right_N == n_N, shortest_N, torch.where(n_right_N == 0, longest_N, opt_N))
        return torch.where(n_N > 0, opt_N, 0.0)


def _moments(batch: RolloutBatch, mask_N: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance of the lengths of the masked rows of each group, (N,) each; 0 where none.

    From whole-number sums, so that the order of rows does not matter, not in the last bit: the optimum divides by a
    difference of two variances.
    """
    length_PG = torch.where(batch.by_group(mask_N), batch.by_group(batch.lengths), 0)
    n_P = batch.by_group(mask_N).sum(dim=1)
    sum_P, square_P = length_PG.sum(dim=1), (length_PG**2).sum(dim=1)
    n2_P = (n_P**2).clamp(min=1)
    return batch.per_row(sum_P / n_P.clamp(min=1).double()), batch.per_row((n_P * square_P - sum_P**2) / n2_P.double())
