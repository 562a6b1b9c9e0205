"""The projection of hidden states through a language-model head, swept tile by tile; the (N, V) logits never exist.

A tile is a block of rows times a block of the vocabulary, float32 whatever the inputs are, small enough to stay in
cache. A sweep multiplies into it, lets a `Fold` reduce it in place, and uses the same memory for the next one. What
runs here is the same on every device; a backend is a fold and a size of tile.

Axes: N rows (tokens), H hidden size, V vocabulary (of this rank's shard), n and v their blocks.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LOWEST = torch.finfo(torch.float32).min
"""Where a running maximum starts: finite, so that its difference to a logit is no NaN."""


@dataclass(frozen=True)
class Projection:
    """N rows against a head: z = pre * (h W^T + b), and with a soft-cap z = post * tanh(pre * (h W^T + b)).

    Attributes:
        hidden_NH: hidden states.
        weight_VH, bias_V: the head, or this rank's shard of it.
        target_N: int64, the sampled token's place in this shard; -1 where another shard has it.
        pre_N: float32; None is 1. Logit scale over temperature, or logit scale over soft-cap.
        post_N: float32, soft-cap over temperature; None is no soft-cap.
    """

    hidden_NH: Tensor
    weight_VH: Tensor
    bias_V: Tensor | None
    target_N: Tensor
    pre_N: Tensor | None
    post_N: Tensor | None

    def rows(self, block: slice) -> Projection:
        """The same head, these rows."""
        return dataclasses.replace(
            self,
            hidden_NH=self.hidden_NH[block],
            target_N=self.target_N[block],
            pre_N=None if self.pre_N is None else self.pre_N[block],
            post_N=None if self.post_N is None else self.post_N[block],
        )

    @property
    def dtype(self) -> torch.dtype:
        return tile_dtype(self.hidden_NH)

    @property
    def operand_dtype(self) -> torch.dtype:
        """What the products read: half precision where tensor cores take it, else as the tile."""
        both = torch.promote_types(self.hidden_NH.dtype, self.weight_VH.dtype)
        return both if self.hidden_NH.is_cuda else self.dtype


def tile_dtype(hidden: Tensor) -> torch.dtype:
    """Of tiles, statistics and accumulated gradients: float32, unless the inputs are float64 (tests)."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Statistics:
    """What one pass over the vocabulary leaves of a row's logits z, running while it lasts.

    Attributes:
        max_N: max z.
        sum_exp_N: sum of exp(z - max).
        sum_shifted_N: sum of exp(z - max) * (z - max); shifted, so that large logits cost the entropy no digits.
        target_logit_N: z of the sampled token, 0 where it is not in this shard.
    """

    max_N: Tensor
    sum_exp_N: Tensor
    sum_shifted_N: Tensor
    target_logit_N: Tensor

    @classmethod
    def empty(cls, projection: Projection) -> Statistics:
        zeros = torch.zeros(len(projection.target_N), dtype=projection.dtype, device=projection.hidden_NH.device)
        return cls(torch.full_like(zeros, LOWEST), zeros, zeros.clone(), zeros.clone())

    def rows(self, block: slice) -> Statistics:
        return Statistics(*(getattr(self, field.name)[block] for field in dataclasses.fields(self)))

    @property
    def lse_N(self) -> Tensor:
        """log sum exp(z)."""
        return self.max_N + self.sum_exp_N.log()

    @property
    def logprob_N(self) -> Tensor:
        """z of the sampled token less the log-sum-exp; the maximum is taken off first, which large logits need."""
        return (self.target_logit_N - self.max_N) - self.sum_exp_N.log()

    @property
    def entropy_N(self) -> Tensor:
        """-sum p log p in nats."""
        return self.sum_exp_N.log() - self.sum_shifted_N / self.sum_exp_N


@dataclass(frozen=True)
class Upstream:
    """What the gradient of a row's logits is made of.

    dL/dz_j = exp(s_j) (scale - entropy_scale s_j) + logprob_grad [j = target], with s_j = z_j - max. It is

        p_j (dL/dlse - dL/dlogprob + dL/dentropy (sum_i p_i s_i - s_j)) + dL/dlogprob [j = target]

    for any loss of log-prob, entropy and log-sum-exp. The maximum is taken off first, as forward: less the log-sum-exp,
    which is rounded where logits are large, p would lose digits.
    """

    max_N: Tensor
    scale_N: Tensor
    entropy_scale_N: Tensor | None
    logprob_grad_N: Tensor

    @classmethod
    def of(
        cls,
        statistics: Statistics,
        logprob_grad_N: Tensor | None,
        entropy_grad_N: Tensor | None,
        lse_grad_N: Tensor | None,
    ) -> Upstream:
        zeros_N = torch.zeros_like(statistics.max_N)
        logprob_grad_N = zeros_N if logprob_grad_N is None else logprob_grad_N
        total_N = (zeros_N if lse_grad_N is None else lse_grad_N) - logprob_grad_N
        entropy_scale_N = None
        if entropy_grad_N is not None:
            entropy_scale_N = entropy_grad_N / statistics.sum_exp_N
            total_N = total_N + entropy_scale_N * statistics.sum_shifted_N
        return cls(statistics.max_N, total_N / statistics.sum_exp_N, entropy_scale_N, logprob_grad_N)

    def rows(self, block: slice) -> Upstream:
        entropy_scale_n = None if self.entropy_scale_N is None else self.entropy_scale_N[block]
        return Upstream(self.max_N[block], self.scale_N[block], entropy_scale_n, self.logprob_grad_N[block])


class Fold(Protocol):
    """Reduces tiles. `tile_nv` comes in as h W^T, bias and scaling not yet applied.

    `rows` and the rows of `statistics` and `upstream` are the tile's own; `first_column` is its place in the shard.
    """

    def statistics(
        self, tile_nv: Tensor, rows: Projection, statistics: Statistics, first_column: int, *, entropy: bool
    ) -> None:
        """Fold the tile into the running statistics; the tile stays as it is."""

    def gradient(self, tile_nv: Tensor, rows: Projection, upstream: Upstream, first_column: int) -> Tensor:
        """dL / d(h W^T + b), in the type that the products want; the tile is spent, its memory may be the result's."""


@dataclass(frozen=True)
class TileShape:
    """Most rows and columns of a tile."""

    rows: int
    columns: int

    def row_blocks(self, count: int) -> list[slice]:
        return [slice(start, min(start + self.rows, count)) for start in range(0, count, self.rows)]

    def column_blocks(self, count: int) -> list[slice]:
        return [slice(start, min(start + self.columns, count)) for start in range(0, count, self.columns)]

    def widened(self, rows: int) -> TileShape:
        """For blocks of so few rows, a tile of the same size: as many more columns, by 128."""
        return TileShape(rows, max(self.columns, self.rows * self.columns // max(1, rows) // 128 * 128))


class Tiles:
    """The memory of one sweep's tile, used again for each."""

    def __init__(self, projection: Projection, shape: TileShape) -> None:
        rows = min(shape.rows, len(projection.target_N))
        columns = min(shape.columns, len(projection.weight_VH))
        self.buffer = torch.empty(rows * columns, dtype=projection.dtype, device=projection.hidden_NH.device)

    def project(self, hidden_nH: Tensor, weight_vH: Tensor) -> Tensor:
        """h W^T of a block, (n, v), contiguous."""
        n, v = len(hidden_nH), len(weight_vH)
        tile_nv = self.buffer[: n * v].view(n, v)
        multiply(hidden_nH, weight_vH.t(), out=tile_nv)
        return tile_nv


def operand(matrix: Tensor) -> Tensor:
    """A factor as the products take it: half precision stays as it is where tensor cores read it, else float32."""
    return matrix if matrix.is_cuda or matrix.dtype in (torch.float32, torch.float64) else matrix.float()


def multiply(a: Tensor, b: Tensor, *, out: Tensor) -> None:
    """out = a b, accumulated and stored in out's float32."""
    a, b = _of_one_type(a, b)
    if a.dtype != out.dtype:
        torch.mm(a, b, out_dtype=out.dtype, out=out)
    elif _by_onednn(a):
        for start in range(0, max(1, a.shape[1]), ONEDNN_INNER):
            inner = slice(start, start + ONEDNN_INNER)
            part = _onednn(a[:, inner].contiguous(), b[inner].t().contiguous())
            out.copy_(part) if start == 0 else out.add_(part)
    else:
        torch.mm(a, b, out=out)


def multiply_add(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, accumulated and stored in total's float32."""
    a, b = _of_one_type(a, b)
    if a.dtype != total.dtype:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    elif _by_onednn(a):
        total.add_(_onednn(a, b.t()))
    else:
        total.addmm_(a, b)


ONEDNN_INNER = 128
"""Products that become logits are summed by so many terms: oneDNN adds all terms of an entry in one chain, which at
H = 896 makes log-probs of peaked rows wrong by 1.0e-5; in blocks of 128 by 3.3e-6 (MKL: 3.4e-6), in a fifth more time.
"""


def _by_onednn(a: Tensor) -> bool:
    return a.dtype == torch.float32 and not a.is_cuda and _mkl_is_slow()


@functools.cache
def _mkl_is_slow() -> bool:
    """On AMD with AVX-512: there oneDNN takes half the time of MKL in float32 (measured on a Zen 5 alone)."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not (there and hasattr(torch.cpu, "get_capabilities")):
        return False
    known = torch.cpu.get_capabilities()
    return "AMD" in known.get("cpu_name", "") and known.get("avx512_f", False)


def _onednn(a: Tensor, b_transposed: Tensor) -> Tensor:
    """a b by oneDNN. Rows must lie one behind the other, or columns: for other strides it has only a slow reference."""
    return torch.ops.mkldnn._linear_pointwise(a, b_transposed, None, "none", [], "")


def _of_one_type(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)  # they differ where a float32 head reads half-precision states
    return a.to(dtype), b.to(dtype)


def sweep_statistics(projection: Projection, fold: Fold, shape: TileShape, *, entropy: bool) -> Statistics:
    """One product: the statistics of every row."""
    statistics = Statistics.empty(projection)
    tiles = Tiles(projection, shape)
    row_blocks = [
        (projection.rows(block), statistics.rows(block)) for block in shape.row_blocks(len(projection.target_N))
    ]
    hidden = operand(projection.hidden_NH)
    for columns in shape.column_blocks(len(projection.weight_VH)):
        weight_vH = operand(projection.weight_VH[columns])
        for block, (rows, running) in zip(shape.row_blocks(len(hidden)), row_blocks, strict=True):
            tile_nv = tiles.project(hidden[block], weight_vH)
            fold.statistics(tile_nv, rows, running, columns.start, entropy=entropy)
    return statistics


@dataclass
class Gradients:
    """Gradients under way, float32; None where nobody asked."""

    hidden_NH: Tensor | None
    weight_VH: Tensor | None
    bias_V: Tensor | None


def sweep_gradients(
    projection: Projection, fold: Fold, shape: TileShape, upstream: Upstream, *, hidden: bool, weight: bool, bias: bool
) -> Gradients:
    """Up to three products: each tile made again, turned into its gradient, and multiplied into both factors' own."""
    hidden_NH = operand(projection.hidden_NH)
    found = Gradients(
        torch.zeros_like(hidden_NH, dtype=projection.dtype) if hidden else None,
        torch.empty_like(projection.weight_VH) if weight else None,
        torch.empty_like(projection.bias_V) if bias and projection.bias_V is not None else None,
    )
    tiles = Tiles(projection, shape)
    for columns in shape.column_blocks(len(projection.weight_VH)):
        weight_vH = operand(projection.weight_VH[columns])
        block_gradient = _ColumnGradient(found, columns, projection.dtype)
        for block in shape.row_blocks(len(hidden_NH)):
            tile_nv = tiles.project(hidden_NH[block], weight_vH)
            dz_nv = fold.gradient(tile_nv, projection.rows(block), upstream.rows(block), columns.start)
            if found.hidden_NH is not None:
                multiply_add(found.hidden_NH[block], dz_nv, weight_vH)
            block_gradient.add(dz_nv, hidden_NH[block])
        block_gradient.store()
    return found


class _ColumnGradient:
    """The head's gradient for one block of the vocabulary: summed over all rows in float32, rounded once at the end."""

    def __init__(self, found: Gradients, columns: slice, dtype: torch.dtype) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []  # (destination, float32 sum)
        self.weight_vH = self._sum(found.weight_VH, columns, dtype)
        self.bias_v = self._sum(found.bias_V, columns, dtype)

    def _sum(self, whole: Tensor | None, columns: slice, dtype: torch.dtype) -> Tensor | None:
        if whole is None:
            return None
        destination = whole[columns]
        total = destination.zero_() if whole.dtype == dtype else torch.zeros_like(destination, dtype=dtype)
        self.pairs.append((destination, total))
        return total

    def add(self, dz_nv: Tensor, hidden_nH: Tensor) -> None:
        if self.weight_vH is not None:
            multiply_add(self.weight_vH, dz_nv.t(), hidden_nH)
        if self.bias_v is not None:
            self.bias_v += dz_nv.sum(dim=0, dtype=self.bias_v.dtype)

    def store(self) -> None:
        for destination, total in self.pairs:
            if destination is not total:
                destination.copy_(total)


def strips(projection: Projection, rows_most: int, bytes_most: int) -> list[slice]:
    """Blocks of at most so many rows, one or more, whose logits over the whole vocabulary take at most these bytes."""
    itemsize = torch.finfo(projection.dtype).bits // 8
    rows = max(1, min(rows_most, bytes_most // (itemsize * len(projection.weight_VH))))
    count = len(projection.target_N)
    even = -(-count // -(-count // rows)) if count else 1  # blocks of like size, none left with a single row
    return [slice(start, min(start + even, count)) for start in range(0, count, even)]
