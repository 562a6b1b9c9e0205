"""Statistics that components share. Rows that do not count are in none of them."""

from __future__ import annotations

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch


def mean_where(values_N: Tensor, mask_N: Tensor) -> float:
    """Mean of the values that the mask keeps; 0 where it keeps none."""
    return float(values_N[mask_N].double().mean()) if bool(mask_N.any()) else 0.0


def group_mean(batch: RolloutBatch, values_N: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Mean over the rows of each group that count (and that `mask_N` keeps), repeated for its rows, (N,); 0 if none."""
    kept_PG = batch.by_group(_kept(batch, mask_N))
    values_PG = batch.by_group(values_N.to(torch.float64))
    n_P = kept_PG.sum(dim=1)
    means_P = torch.where(kept_PG, values_PG, 0.0).sum(dim=1) / n_P.clamp(min=1)
    # Rounding may put the mean of equal values beside them; a mean lies between its smallest and largest value.
    lowest_P = torch.where(kept_PG, values_PG, torch.inf).amin(dim=1)
    highest_P = torch.where(kept_PG, values_PG, -torch.inf).amax(dim=1)
    return batch.per_row(torch.where(n_P > 0, torch.minimum(torch.maximum(means_P, lowest_P), highest_P), 0.0))


def group_std(
    batch: RolloutBatch, values_N: Tensor, mask_N: Tensor | None = None, *, population: bool = False
) -> Tensor:
    """Standard deviation of the same rows, (N,): sample (n - 1), or population (n); 0 where it is not defined."""
    kept_N = _kept(batch, mask_N)
    weights_PG = batch.by_group(kept_N).to(torch.float64)
    deviations_N = torch.where(kept_N, values_N.to(torch.float64) - group_mean(batch, values_N, mask_N), 0.0)
    squares_P = (batch.by_group(deviations_N) ** 2).sum(dim=1)
    n_P = weights_PG.sum(dim=1) - (0 if population else 1)
    return batch.per_row((squares_P / n_P.clamp(min=1)).sqrt())


def z_score(
    batch: RolloutBatch, values_N: Tensor, mask_N: Tensor | None = None, *, epsilon: float, population: bool = False
) -> Tensor:
    """(x - mean) / (standard deviation + epsilon) over the same rows, (N,); 0 where they are one or all equal."""
    centred_N = values_N.to(torch.float64) - group_mean(batch, values_N, mask_N)
    return centred_N / (group_std(batch, values_N, mask_N, population=population) + epsilon)


def group_count(batch: RolloutBatch, mask_N: Tensor | None = None) -> Tensor:
    """How many rows of each group count (and the mask keeps), repeated for its rows, (N,) int64."""
    return batch.per_row(batch.by_group(_kept(batch, mask_N)).sum(dim=1))


def group_min(batch: RolloutBatch, values_N: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Minimum of the same rows, (N,) float64; +inf where there are none."""
    kept_PG = batch.by_group(_kept(batch, mask_N))
    values_PG = batch.by_group(values_N.to(torch.float64))
    return batch.per_row(torch.where(kept_PG, values_PG, torch.inf).amin(dim=1))


def group_max(batch: RolloutBatch, values_N: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Maximum of the same rows, (N,) float64; -inf where there are none."""
    return -group_min(batch, -values_N.to(torch.float64), mask_N)


def group_quantile(batch: RolloutBatch, values_N: Tensor, share: float) -> Tensor:
    """Quantile of the rows of each group that count, between neighbours in a straight line, (N,); 0 if none counts."""
    values_PG, counts_PG = batch.by_group(values_N.to(torch.float64)), batch.by_group(batch.counts)
    found = [
        torch.quantile(v_G[c_G], share) if bool(c_G.any()) else torch.zeros((), dtype=torch.float64)
        for v_G, c_G in zip(values_PG, counts_PG, strict=True)
    ]
    return batch.per_row(torch.stack(found)) if found else values_N.new_zeros(0, dtype=torch.float64)


def standardised(values_N: Tensor, weights_N: Tensor, *, epsilon: float, inside: bool) -> Tensor:
    """(x - m) / sqrt(v + epsilon), or / (sqrt(v) + epsilon) where epsilon is not `inside` the root, (N,) float64.

    m and v are mean and variance over all rows together, each row standing for `weights_N` cases (0 leaves it out), v
    with n - 1. All 0 where nothing varies or there are fewer than two cases.
    """
    taken = weights_N > 0
    n = float(weights_N.sum())
    if n < 2 or values_N[taken].min() == values_N[taken].max():
        return torch.zeros_like(values_N, dtype=torch.float64)
    weights_N = weights_N.to(torch.float64)
    centred_N = values_N - (torch.where(taken, values_N, 0.0) * weights_N).sum() / n
    variance = (torch.where(taken, centred_N, 0.0) ** 2 * weights_N).sum() / (n - 1)
    scale = (variance + epsilon).sqrt() if inside else variance.sqrt() + epsilon
    return centred_N / scale


def right(batch: RolloutBatch) -> Tensor:
    """The right rows that count, (N,) bool."""
    return batch.correct & batch.counts


def pass_rate(batch: RolloutBatch) -> Tensor:
    """Share of right rows among those of the group that count, repeated for its rows, (N,); 0 where none counts."""
    return group_mean(batch, batch.correct)


def zero_where_out(batch: RolloutBatch, credit: Tensor) -> Tensor:
    """Credit, (N,) or (N, T), with the rows that do not count set to 0."""
    counts = batch.counts if credit.ndim == 1 else batch.counts[:, None]
    return credit if bool(counts.all()) else credit.masked_fill(~counts, 0)


def _kept(batch: RolloutBatch, mask_N: Tensor | None) -> Tensor:
    return batch.counts if mask_N is None else batch.counts & mask_N
