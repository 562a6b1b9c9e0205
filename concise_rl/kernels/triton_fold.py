"""Tiles folded by Triton: one pass over a tile for its statistics, one for its gradient.

The matrix products stay with cuBLAS, which reads half precision and leaves float32; a tile is small enough to be in L2
when the fold reads it. Everything between two products happens in registers.
"""

# mypy: disallow-incomplete-defs=False
# (a kernel annotates what is compiled in, and nothing else)
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from concise_rl.kernels.tiles import Projection, Statistics, Upstream
from concise_rl.kernels.triton_common import (
    MINIMUM,
    finish_logits,
    fold_statistics,
    load_rows,
    on_device_of,
    runs_on,
    vectors,
)

__all__ = ["TritonFold", "runs_on", "write_gradient"]

BLOCK = {"ROWS": 2, "COLUMNS": 1024, "num_warps": 4}
"""What one program holds in registers: 16 numbers a thread, read 16 bytes at a time."""


@triton.jit
def statistics_kernel(
    tile_nv,
    bias_V,
    pre_N,
    post_N,
    target_N,
    max_N,
    sum_exp_N,
    sum_shifted_N,
    target_logit_N,
    rows,
    columns,
    first_column,
    ENTROPY: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row_n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside_n = row_n < rows
    pre_n = None if pre_N is None else load_rows(pre_N, row_n, rows)
    post_n = None if post_N is None else load_rows(post_N, row_n, rows)
    target_n = tl.load(target_N + row_n, mask=inside_n, other=-1) - first_column
    largest_n = tl.load(max_N + row_n, mask=inside_n, other=MINIMUM)
    sum_n = tl.load(sum_exp_N + row_n, mask=inside_n, other=0.0)
    shifted_n = tl.load(sum_shifted_N + row_n, mask=inside_n, other=0.0)
    target_logit_n = tl.load(target_logit_N + row_n, mask=inside_n, other=0.0)
    # A strip of rows over a whole vocabulary has more elements than int32 counts.
    line_n1 = tile_nv + row_n.to(tl.int64)[:, None] * columns
    for start in range(0, columns, COLUMNS):
        column_v = start + tl.arange(0, COLUMNS)
        counts_nv = inside_n[:, None] & (column_v < columns)[None, :]
        product_nv = tl.load(line_n1 + column_v[None, :], mask=counts_nv, other=0.0)
        z_nv, _ = finish_logits(product_nv, bias_V, pre_n, post_n, column_v, columns)
        z_nv = tl.where(counts_nv, z_nv, MINIMUM)
        is_target_nv = column_v[None, :] == target_n[:, None]
        largest_n, sum_n, shifted_n, target_logit_n = fold_statistics(
            z_nv, largest_n, sum_n, shifted_n, target_logit_n, is_target_nv & counts_nv, ENTROPY
        )
    tl.store(max_N + row_n, largest_n, mask=inside_n)
    tl.store(sum_exp_N + row_n, sum_n, mask=inside_n)
    tl.store(target_logit_N + row_n, target_logit_n, mask=inside_n)
    if ENTROPY:
        tl.store(sum_shifted_N + row_n, shifted_n, mask=inside_n)


@triton.jit
def gradient_kernel(
    tile_nv,
    dz_nv,
    bias_V,
    pre_N,
    post_N,
    target_N,
    max_N,
    scale_N,
    entropy_scale_N,
    logprob_grad_N,
    rows,
    columns,
    first_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row_n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside_n = row_n < rows
    pre_n = None if pre_N is None else load_rows(pre_N, row_n, rows)
    post_n = None if post_N is None else load_rows(post_N, row_n, rows)
    target_n = tl.load(target_N + row_n, mask=inside_n, other=-1) - first_column
    largest_n = load_rows(max_N, row_n, rows)
    scale_n = load_rows(scale_N, row_n, rows)
    entropy_scale_n = None if entropy_scale_N is None else load_rows(entropy_scale_N, row_n, rows)
    logprob_grad_n = load_rows(logprob_grad_N, row_n, rows)
    offset_n1 = row_n.to(tl.int64)[:, None] * columns
    for start in range(0, columns, COLUMNS):
        column_v = start + tl.arange(0, COLUMNS)
        counts_nv = inside_n[:, None] & (column_v < columns)[None, :]
        product_nv = tl.load(tile_nv + offset_n1 + column_v[None, :], mask=counts_nv, other=0.0)
        z_nv, tanh_nv = finish_logits(product_nv, bias_V, pre_n, post_n, column_v, columns)
        z_nv -= largest_n[:, None]
        factor_nv = scale_n[:, None]
        if entropy_scale_n is not None:
            factor_nv -= entropy_scale_n[:, None] * z_nv
        gradient_nv = tl.exp(z_nv) * factor_nv
        is_target_nv = column_v[None, :] == target_n[:, None]
        gradient_nv += tl.where(is_target_nv, logprob_grad_n[:, None], 0.0)
        if post_n is not None:
            gradient_nv *= (1.0 - tanh_nv * tanh_nv) * post_n[:, None]
        if pre_n is not None:
            gradient_nv *= pre_n[:, None]
        tl.store(dz_nv + offset_n1 + column_v[None, :], gradient_nv.to(dz_nv.dtype.element_ty), mask=counts_nv)


class TritonFold:
    """A fold on CUDA whose only memory is one half-precision copy of the tile, where the products want that."""

    def __init__(self) -> None:
        self._half: Tensor | None = None

    def statistics(
        self, tile_nv: Tensor, rows: Projection, statistics: Statistics, first_column: int, *, entropy: bool
    ) -> None:
        n, v = tile_nv.shape
        with on_device_of(tile_nv):
            statistics_kernel[(triton.cdiv(n, BLOCK["ROWS"]),)](
                tile_nv,
                *vectors(rows, slice(first_column, first_column + v)),
                statistics.max_N,
                statistics.sum_exp_N,
                statistics.sum_shifted_N,
                statistics.target_logit_N,
                n,
                v,
                first_column,
                ENTROPY=entropy,
                **BLOCK,
            )

    def gradient(self, tile_nv: Tensor, rows: Projection, upstream: Upstream, first_column: int) -> Tensor:
        dz_nv = tile_nv if rows.operand_dtype == tile_nv.dtype else self._half_like(tile_nv, rows.operand_dtype)
        write_gradient(dz_nv, tile_nv, rows, upstream, first_column)
        return dz_nv

    def _half_like(self, tile_nv: Tensor, dtype: torch.dtype) -> Tensor:
        size = tile_nv.numel()
        if self._half is None or self._half.numel() < size:
            self._half = torch.empty(size, dtype=dtype, device=tile_nv.device)
        return self._half[:size].view_as(tile_nv)


def write_gradient(dz_nv: Tensor, tile_nv: Tensor, rows: Projection, upstream: Upstream, first_column: int) -> None:
    """`Fold.gradient` into `dz_nv`, of any floating type, which may be the tile itself."""
    n, v = tile_nv.shape
    with on_device_of(tile_nv):
        gradient_kernel[(triton.cdiv(n, BLOCK["ROWS"]),)](
            tile_nv,
            dz_nv,
            *vectors(rows, slice(first_column, first_column + v)),
            upstream.max_N,
            upstream.scale_N,
            upstream.entropy_scale_N,
            upstream.logprob_grad_N.contiguous(),  # a sum's gradient is one number, expanded
            n,
            v,
            first_column,
            **BLOCK,
        )
