"""Tiles folded by plain torch operations in place: any device."""

from __future__ import annotations

import torch
from torch import Tensor

from concise_rl.kernels.tiles import Projection, Statistics, Upstream


class TorchFold:
    """A fold whose only memory is up to two more tiles, used again for each."""

    def __init__(self) -> None:
        self._spare: dict[str, Tensor] = {}

    def statistics(
        self, tile_nv: Tensor, rows: Projection, statistics: Statistics, first_column: int, *, entropy: bool
    ) -> None:
        if rows.bias_V is not None or rows.pre_N is not None or rows.post_N is not None:
            tile_nv = finish_logits(self._like(tile_nv, "exp").copy_(tile_nv), rows, first_column)
        local_n, inside_n = _local_targets(rows.target_N, first_column, tile_nv.shape[1])
        target_n = tile_nv.gather(1, local_n[:, None]).squeeze(1)
        statistics.target_logit_N.copy_(torch.where(inside_n, target_n, statistics.target_logit_N))

        largest_n = torch.maximum(statistics.max_N, tile_nv.amax(dim=1))
        shift_n = statistics.max_N - largest_n
        scale_n = shift_n.exp()
        shifted_nv = torch.sub(tile_nv, largest_n[:, None], out=self._like(tile_nv, "shifted"))
        if entropy:
            exp_nv = torch.exp(shifted_nv, out=self._like(tile_nv, "exp"))
            # The earlier sums were shifted by another maximum.
            statistics.sum_shifted_N.add_(shift_n * statistics.sum_exp_N).mul_(scale_n)
            statistics.sum_shifted_N.add_(shifted_nv.mul_(exp_nv).sum(dim=1))
        else:
            exp_nv = shifted_nv.exp_()
        statistics.sum_exp_N.mul_(scale_n).add_(exp_nv.sum(dim=1))
        statistics.max_N.copy_(largest_n)

    def gradient(self, tile_nv: Tensor, rows: Projection, upstream: Upstream, first_column: int) -> Tensor:
        finish_logits(tile_nv, rows, first_column)
        slope_nv = None
        if rows.post_N is not None:  # d tanh: post * (1 - (z / post)^2)
            slope_nv = torch.div(tile_nv, rows.post_N[:, None], out=self._like(tile_nv, "shifted"))
            slope_nv.square_().neg_().add_(1).mul_(rows.post_N[:, None])
        tile_nv.sub_(upstream.max_N[:, None])
        if upstream.entropy_scale_N is None:
            dz_nv = tile_nv.exp_().mul_(upstream.scale_N[:, None])
        else:
            exp_nv = torch.exp(tile_nv, out=self._like(tile_nv, "exp"))
            # Two passes: a broadcast addcmul takes the time of ten.
            factor_nv = tile_nv.mul_(-upstream.entropy_scale_N[:, None]).add_(upstream.scale_N[:, None])
            dz_nv = factor_nv.mul_(exp_nv)
        local_n, inside_n = _local_targets(rows.target_N, first_column, tile_nv.shape[1])
        dz_nv.scatter_add_(1, local_n[:, None], (upstream.logprob_grad_N * inside_n)[:, None])
        if slope_nv is not None:
            dz_nv.mul_(slope_nv)
        if rows.pre_N is not None:
            dz_nv.mul_(rows.pre_N[:, None])
        return dz_nv.to(rows.operand_dtype)

    def _like(self, tile_nv: Tensor, use: str) -> Tensor:
        """Memory for one more tile of this shape."""
        size, spare = tile_nv.numel(), self._spare.get(use)
        if spare is None or spare.numel() < size:
            spare = self._spare[use] = torch.empty(size, dtype=tile_nv.dtype, device=tile_nv.device)
        return spare[:size].view_as(tile_nv)


def finish_logits(tile_nv: Tensor, rows: Projection, first_column: int) -> Tensor:
    """h W^T to z, in place."""
    if rows.bias_V is not None:
        tile_nv.add_(rows.bias_V[first_column : first_column + tile_nv.shape[1]])
    if rows.pre_N is not None:
        tile_nv.mul_(rows.pre_N[:, None])
    if rows.post_N is not None:
        tile_nv.tanh_().mul_(rows.post_N[:, None])
    return tile_nv


def _local_targets(target_n: Tensor, first_column: int, columns: int) -> tuple[Tensor, Tensor]:
    """The sampled token's column in the tile, 0 where it is elsewhere, and whether it is here."""
    local_n = target_n - first_column
    inside_n = (local_n >= 0) & (local_n < columns) & (target_n >= 0)
    return local_n.where(inside_n, 0), inside_n
