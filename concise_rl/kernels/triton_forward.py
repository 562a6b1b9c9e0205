"""The statistics of every row in one kernel: product and fold without a tile in memory, for passes without gradient.

A program takes a block of rows and a stretch of the vocabulary. For each block of columns in it, it multiplies into
float32 accumulators and folds them into running statistics while they are in registers; the stretches are merged after.
No size has to divide another: outside a matrix, operands are read as zeros.
"""

# mypy: disallow-incomplete-defs=False
# (a kernel annotates what is compiled in, and nothing else)
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from concise_rl.kernels.tiles import Projection, Statistics
from concise_rl.kernels.triton_common import (
    INTERPRETED,
    MINIMUM,
    finish_logits,
    fold_statistics,
    load_rows,
    on_device_of,
    runs_on,
    vectors,
)

ROW_GROUP = 8
"""Blocks of rows side by side: their hidden states stay in L2 while the head passes by once for all of them."""

MOST_BLOCKS = 32
"""Blocks of columns in one stretch: a program lasts long enough to pay for its start, short enough to balance."""


@dataclass(frozen=True)
class Block:
    """Of one product, and how many warps and buffers make it."""

    ROWS: int
    COLUMNS: int
    DEPTH: int
    num_warps: int
    num_stages: int


POINTERS = Block(128, 128, 64, 8, 3)
"""64 kB of shared memory: within the 99 kB of the smallest sm_8x and sm_12x."""

DESCRIPTORS = {9: Block(256, 128, 64, 8, 4), 10: Block(128, 128, 64, 8, 4)}
"""By major compute capability, where operands come through TMA."""

ALIGNMENT = 16
"""Elements that divide rows, and bytes that divide addresses: loads are 16 bytes wide, through TMA or not."""


@triton.jit
def load_operand(matrix, row_stride, row_start, k, rows, depth, ROWS: tl.constexpr, DEPTH: tl.constexpr):
    """A block of a matrix; `row_stride` is None where the matrix is a tensor descriptor."""
    if row_stride is None:
        block_nk = matrix.load([row_start, k])
    else:
        row_n = row_start + tl.arange(0, ROWS)
        k_k = k + tl.arange(0, DEPTH)
        inside_nk = (row_n < rows)[:, None] & (k_k < depth)[None, :]
        place_nk = row_n.to(tl.int64)[:, None] * row_stride + k_k[None, :]
        block_nk = tl.load(matrix + place_nk, mask=inside_nk, other=0.0)
    return block_nk


@triton.jit
def place_of_program(rows, stretches, GROUP: tl.constexpr, ROWS: tl.constexpr):
    """The first row and the stretch of the vocabulary of this program; GROUP blocks of rows share a stretch in turn."""
    program = tl.program_id(0)
    row_blocks = tl.cdiv(rows, ROWS)
    first_block = program // (GROUP * stretches) * GROUP
    group_size = tl.minimum(row_blocks - first_block, GROUP)
    within = program - first_block * stretches
    return (first_block + within % group_size) * ROWS, within // group_size


@triton.jit
def forward_kernel(
    hidden_NH,
    weight_VH,
    hidden_stride,
    weight_stride,
    bias_V,
    pre_N,
    post_N,
    target_N,
    parts_4SN,
    rows,
    columns,
    depth,
    stretches,
    blocks_per_stretch,
    ENTROPY: tl.constexpr,
    UPCAST: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    row_start, stretch = place_of_program(rows, stretches, GROUP, ROWS)
    row_n = row_start + tl.arange(0, ROWS)
    pre_n = None if pre_N is None else load_rows(pre_N, row_n, rows)
    post_n = None if post_N is None else load_rows(post_N, row_n, rows)
    target_n = tl.load(target_N + row_n, mask=row_n < rows, other=-1)
    largest_n = tl.full((ROWS,), MINIMUM, tl.float32)
    sum_n = tl.zeros((ROWS,), tl.float32)
    shifted_n = tl.zeros((ROWS,), tl.float32)
    target_logit_n = tl.zeros((ROWS,), tl.float32)

    first_column = stretch * blocks_per_stretch * COLUMNS
    last_column = tl.minimum(first_column + blocks_per_stretch * COLUMNS, columns)
    for start in range(first_column, last_column, COLUMNS):
        product_nv = tl.zeros((ROWS, COLUMNS), tl.float32)
        for k in range(0, depth, DEPTH):
            hidden_nk = load_operand(hidden_NH, hidden_stride, row_start, k, rows, depth, ROWS, DEPTH)
            weight_vk = load_operand(weight_VH, weight_stride, start, k, columns, depth, COLUMNS, DEPTH)
            if UPCAST:
                hidden_nk = hidden_nk.to(tl.float32)
                weight_vk = weight_vk.to(tl.float32)
            product_nv = tl.dot(hidden_nk, weight_vk.T, product_nv)
        column_v = start + tl.arange(0, COLUMNS)
        z_nv, _ = finish_logits(product_nv, bias_V, pre_n, post_n, column_v, columns)
        z_nv = tl.where((column_v < columns)[None, :], z_nv, MINIMUM)
        is_target_nv = column_v[None, :] == target_n[:, None]
        largest_n, sum_n, shifted_n, target_logit_n = fold_statistics(
            z_nv, largest_n, sum_n, shifted_n, target_logit_n, is_target_nv, ENTROPY
        )
    part = tl.cast(stretches, tl.int64) * rows
    place_n = parts_4SN + stretch.to(tl.int64) * rows + row_n
    tl.store(place_n, largest_n, mask=row_n < rows)
    tl.store(place_n + part, sum_n, mask=row_n < rows)
    tl.store(place_n + 2 * part, shifted_n, mask=row_n < rows)
    tl.store(place_n + 3 * part, target_logit_n, mask=row_n < rows)


def supports(projection: Projection) -> bool:
    """Half precision that tensor cores read, in aligned rows; all else is as well off with cuBLAS and the sweep."""
    hidden_NH, weight_VH = projection.hidden_NH, projection.weight_VH
    return (
        runs_on(hidden_NH.device)
        and hidden_NH.dtype == weight_VH.dtype
        and hidden_NH.dtype in (torch.float16, torch.bfloat16)
        and hidden_NH.numel() > 0
        and _is_aligned(hidden_NH)
        and _is_aligned(weight_VH)
        and (INTERPRETED or torch.cuda.get_device_capability(hidden_NH.device) >= (8, 0))
    )


def _is_aligned(matrix: Tensor) -> bool:
    row_stride, column_stride = matrix.stride()
    sizes = (row_stride, matrix.shape[1], matrix.data_ptr())
    return column_stride == 1 and all(size % ALIGNMENT == 0 for size in sizes)


def statistics(projection: Projection, *, entropy: bool) -> Statistics:
    """What `sweep_statistics` gives, float32, without a tile: reads hidden states and head, writes 16 bytes a row and
    stretch of the vocabulary.

    Args:
        projection: one that `supports` allows.
        entropy: whether `sum_shifted_N` is wanted; it is 0 otherwise.
    """
    hidden_NH, weight_VH = projection.hidden_NH, projection.weight_VH
    (rows, depth), columns = hidden_NH.shape, len(weight_VH)
    block, described, processors = _hardware(hidden_NH.device)
    row_blocks, column_blocks = triton.cdiv(rows, block.ROWS), triton.cdiv(columns, block.COLUMNS)
    blocks_per_stretch = stretch_length(row_blocks, column_blocks, processors)
    stretches = triton.cdiv(column_blocks, blocks_per_stretch)
    parts_4SN = torch.empty(4, stretches, rows, dtype=torch.float32, device=hidden_NH.device)
    if described:
        operands = (
            TensorDescriptor.from_tensor(hidden_NH, [block.ROWS, block.DEPTH]),
            TensorDescriptor.from_tensor(weight_VH, [block.COLUMNS, block.DEPTH]),
            None,
            None,
        )
    else:
        operands = (hidden_NH, weight_VH, hidden_NH.stride(0), weight_VH.stride(0))
    with on_device_of(hidden_NH):
        forward_kernel[(row_blocks * stretches,)](
            *operands,
            *vectors(projection, slice(None)),
            parts_4SN,
            rows,
            columns,
            depth,
            stretches,
            blocks_per_stretch,
            ENTROPY=entropy,
            UPCAST=INTERPRETED,  # numpy has no bfloat16: the interpreter would multiply its bits
            GROUP=ROW_GROUP,
            **vars(block),
        )
    return merge(Statistics(*parts_4SN))


def merge(parts_SN: Statistics) -> Statistics:
    """The statistics of the whole vocabulary, (N,), from those of its S parts, (S, N)."""
    largest_N = parts_SN.max_N.amax(dim=0)
    shift_SN = parts_SN.max_N - largest_N
    scale_SN = shift_SN.exp()
    shifted_SN = (parts_SN.sum_shifted_N + shift_SN * parts_SN.sum_exp_N) * scale_SN
    return Statistics(
        largest_N, (parts_SN.sum_exp_N * scale_SN).sum(0), shifted_SN.sum(0), parts_SN.target_logit_N.sum(0)
    )


def stretch_length(row_blocks: int, column_blocks: int, processors: int) -> int:
    """Blocks of columns a program: at most `MOST_BLOCKS`, fewer where few rows would leave processors idle.

    Four programs a processor keep what the last of them waste to an eighth of the time.
    """
    stretches = max(triton.cdiv(column_blocks, MOST_BLOCKS), triton.cdiv(4 * processors, row_blocks))
    return triton.cdiv(column_blocks, min(stretches, column_blocks))


def _hardware(device: torch.device) -> tuple[Block, bool, int]:
    """The block, whether operands come through descriptors, and how many programs run at a time."""
    if INTERPRETED:
        return POINTERS, True, 1
    properties = torch.cuda.get_device_properties(device)
    described = properties.major in DESCRIPTORS
    return DESCRIPTORS.get(properties.major, POINTERS), described, properties.multi_processor_count
