"""What the Triton kernels share: logits made of products, and the running statistics of a row.

Kernels speak of the axes as the host does: `_n` rows and `_v` columns of a block, `_N` and `_V` memory. Absent bias and
scales come in as None, which Triton compiles away. No autotuning: it would run kernels that work in place many times.
"""

# mypy: disallow-incomplete-defs=False
# (a kernel annotates what is compiled in, and nothing else)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from concise_rl.kernels.tiles import LOWEST, Projection

MINIMUM = tl.constexpr(LOWEST)


@triton.jit
def finish_logits(product_nv, bias_V, pre_n, post_n, column_v, columns):
    """h W^T to z; with a soft-cap also tanh, else z twice."""
    z_nv = product_nv
    if bias_V is not None:
        z_nv += tl.load(bias_V + column_v, mask=column_v < columns, other=0.0).to(z_nv.dtype)[None, :]
    if pre_n is not None:
        z_nv *= pre_n[:, None]
    tanh_nv = z_nv
    if post_n is not None:
        # exp saturates on both sides; the interpreter has no tanh.
        tanh_nv = 1.0 - 2.0 / (1.0 + tl.exp(2.0 * z_nv))
        z_nv = tanh_nv * post_n[:, None]
    return z_nv, tanh_nv


@triton.jit
def fold_statistics(z_nv, largest_n, sum_n, shifted_n, target_logit_n, is_target_nv, ENTROPY: tl.constexpr):
    """Running statistics with these logits in them; logits that do not count are `MINIMUM`, whose exp is 0."""
    target_logit_n += tl.sum(tl.where(is_target_nv, z_nv, 0.0), axis=1)
    new_n = tl.maximum(largest_n, tl.max(z_nv, axis=1))
    z_nv -= new_n[:, None]
    exp_nv = tl.exp(z_nv)
    # The earlier sums were shifted by another maximum.
    shift_n = largest_n - new_n
    scale_n = tl.exp(shift_n)
    if ENTROPY:
        shifted_n = (shifted_n + shift_n * sum_n) * scale_n + tl.sum(z_nv * exp_nv, axis=1)
    sum_n = sum_n * scale_n + tl.sum(exp_nv, axis=1)
    return new_n, sum_n, shifted_n, target_logit_n


@triton.jit
def load_rows(values_N, row_n, rows):
    """One value a row, 1 beyond the last row. What may be absent is tested by its caller: no kernel returns None before
    Triton 3.7."""
    return tl.load(values_N + row_n, mask=row_n < rows, other=1.0)


INTERPRETED = not isinstance(load_rows, triton.JITFunction)
"""Whether TRITON_INTERPRET=1 was set when this was imported: kernels then run in numpy, on CPU tensors."""


def runs_on(device: torch.device) -> bool:
    """CUDA; the CPU under Triton's interpreter."""
    return device.type == ("cpu" if INTERPRETED else "cuda")


def vectors(rows: Projection, columns: slice) -> list[torch.Tensor | None]:
    """Bias, both scales and targets as the kernels read them: element beside element."""
    bias_v = None if rows.bias_V is None else rows.bias_V[columns]
    return [None if one is None else one.contiguous() for one in (bias_v, rows.pre_N, rows.post_N, rows.target_N)]


def on_device_of(tensor: torch.Tensor) -> Any:
    """A context whose current device is the tensor's: Triton launches on the current one."""
    return torch.cuda.device_of(tensor)
