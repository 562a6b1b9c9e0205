"""What an advantage is: shaped reward to credit, and the group statistics that leave unscorable rows out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch


@runtime_checkable
class Advantage(Protocol):
    """Reward to credit: (N,) a completion, or (N, T) a token. Pure and stateless."""

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(self, batch: RolloutBatch, reward: Tensor) -> Tensor: ...


def group_mean(batch: RolloutBatch, values_N: Tensor) -> Tensor:
    """Mean over the scorable rows of each group, repeated for its rows, (N,); 0 where a group has none."""
    weights_PG = batch.by_group(batch.scorable).to(values_N.dtype)
    sums_P = (batch.by_group(values_N) * weights_PG).sum(dim=1)
    return batch.per_row(sums_P / weights_PG.sum(dim=1).clamp(min=1))


def group_std(batch: RolloutBatch, values_N: Tensor) -> Tensor:
    """Sample standard deviation (n - 1) over the scorable rows of each group, (N,); 0 where fewer than two."""
    weights_PG = batch.by_group(batch.scorable).to(values_N.dtype)
    deviations_N = values_N - group_mean(batch, values_N)
    squares_P = (batch.by_group(deviations_N) ** 2 * weights_PG).sum(dim=1)
    return batch.per_row((squares_P / (weights_PG.sum(dim=1) - 1).clamp(min=1)).sqrt())


def zero_unscorable(batch: RolloutBatch, credit: Tensor) -> Tensor:
    """Credit with the rows that have no verdict set to 0."""
    scorable = batch.scorable if credit.ndim == 1 else batch.scorable[:, None]
    return torch.where(scorable, credit, torch.zeros_like(credit))


def check_credit(advantage: Advantage, batch: RolloutBatch, credit: Tensor) -> None:
    """Refuse credit of the wrong shape or with a NaN, naming the advantage and the row."""
    name = type(advantage).__name__
    if credit.ndim not in (1, 2) or credit.shape[0] != batch.n_rows:
        raise ValueError(f"{name} returned credit of shape {tuple(credit.shape)}; need ({batch.n_rows},) or (.., T)")
    bad = ~torch.isfinite(credit)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"{name} returned credit[{row}]={credit[row].tolist()} for prompt "
            f"{batch.prompt_ids[row // batch.group_size]}: credit must be finite"
        )
