"""DECS's credit: needed tokens and redundant ones are paid apart, position by position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.filters.decs_kappa import NRP
from concise_rl.methods.statistics import group_count, right, zero_where_out


@dataclass
class Decs(Advantage):
    """Credit (N, T): the thought after its first right part earns less than what comes before.

    Source: DECS, arXiv 2509.25827; pixas/DECS @0d12e53 (`length_reward_beta`).

        M_nj = r_n (1 + b)                 every position j < T, those behind the row's end included
        M_nj = r_n + b (1 - L_n / limit)   redundant tokens of a right row: s_n <= j < K_n, s_n = ceil(nrp_n K_n)
        A_nj = (M_nj - mean_group(M_j)) / (std_group(M_j) + 1e-6)         sample deviation; 0 for a group of one

    nrp is the row value `parts["nrp"]`, the share of the thought up to the end of its first right chunk, which DECS
    asks a judge model for and `concise_rl.methods.texts.necessary_share` reads from the text. At 0 (no right chunk) a
    row has no redundant tokens. As 1 - L / limit is below 1, a redundant token always scores below a needed one: among
    all-right groups its credit is negative, in mixed ones it may stay positive. Positions behind a row's end are in
    the statistics, as released, and have no credit themselves.

    Attributes:
        b: what a right token can gain, 0.1.

    Raises:
        UserError: b is not positive.
    """

    b: float = 0.1
    by_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.b) and self.b > 0):
            raise UserError(f"Decs.b={self.b}: must be positive, 0.1 is the released code's")

    @property
    def needs(self) -> frozenset[str]:
        """The share of the thought that was needed."""
        return frozenset({PART_PREFIX + NRP})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit (N, T), from the reward (N,)."""
        nrp_N = batch.part(NRP)
        # Shares are of characters: rounded up, no token that was needed counts as redundant.
        needed_N = torch.where(nrp_N > 0, (nrp_N * batch.think_lengths - 1e-9).ceil(), math.inf)
        needed_N = torch.where(right(batch), needed_N, math.inf).minimum(batch.think_lengths.double()).long()
        starts_PS = _stretches(batch, needed_N)
        starts_NS = starts_PS.repeat_interleave(batch.group_size, dim=0)
        redundant_NS = (starts_NS >= needed_N[:, None]) & (starts_NS < batch.think_lengths[:, None])
        short_N = value + self.b * (1 - batch.lengths / batch.limits)
        paid_NS = torch.where(redundant_NS, short_N[:, None], (value * (1 + self.b))[:, None])
        credit_NS = _standardised(batch, paid_NS).masked_fill(starts_NS >= batch.lengths[:, None], 0.0)
        redundant = float((batch.think_lengths - needed_N).sum())
        share = redundant / max(float(batch.lengths[right(batch)].sum()), 1.0)
        credit_NT = _by_position(batch, starts_PS, zero_where_out(batch, credit_NS))
        return Out(credit_NT, {"decs/redundant_frac": share})


def _stretches(batch: RolloutBatch, needed_N: Tensor) -> Tensor:
    """Where positions begin at which a row of the group is paid otherwise, (P, S), sorted: between two of them all have
    the same credit, so that S = 3 G + 1 positions stand for T."""
    ends_PS = torch.cat([batch.by_group(ends_N) for ends_N in (needed_N, batch.think_lengths, batch.lengths)], dim=1)
    return torch.cat([torch.zeros_like(ends_PS[:, :1]), ends_PS], dim=1).sort(dim=1).values


def _by_position(batch: RolloutBatch, starts_PS: Tensor, values_NS: Tensor) -> Tensor:
    """The value of each position's stretch, (N, T)."""
    places_T = torch.arange(int(batch.lengths.max().clamp(min=1)))
    places_PT = places_T.expand(len(starts_PS), -1).contiguous()
    stretch_PT = torch.searchsorted(starts_PS, places_PT, right=True) - 1
    values_PGS = values_NS.reshape(-1, batch.group_size, values_NS.shape[1])
    found_PGT = values_PGS.gather(2, stretch_PT[:, None].expand(-1, batch.group_size, -1))
    return found_PGT.reshape(len(values_NS), -1)


def _standardised(batch: RolloutBatch, values_NT: Tensor) -> Tensor:
    """Each column over the rows of its group that count."""
    values_PGT = values_NT.reshape(-1, batch.group_size, values_NT.shape[1])
    kept_PG1 = batch.by_group(batch.counts)[:, :, None]
    n_P11 = kept_PG1.sum(dim=1, keepdim=True)
    mean_P1T = torch.where(kept_PG1, values_PGT, 0.0).sum(dim=1, keepdim=True) / n_P11.clamp(min=1)
    centred_PGT = torch.where(kept_PG1, values_PGT - mean_P1T, 0.0)
    std_P1T = ((centred_PGT**2).sum(dim=1, keepdim=True) / (n_P11 - 1).clamp(min=1)).sqrt()
    equal_P1T = (torch.where(kept_PG1, values_PGT, -math.inf).amax(dim=1, keepdim=True)
                 == torch.where(kept_PG1, values_PGT, math.inf).amin(dim=1, keepdim=True))  # fmt: skip
    credit_PGT = torch.where(equal_P1T, 0.0, centred_PGT / (std_P1T + 1e-6))
    alone_N = group_count(batch) < 2
    return torch.where(alone_N[:, None], 0.0, credit_PGT.reshape(values_NT.shape))
