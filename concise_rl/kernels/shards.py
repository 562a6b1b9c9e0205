"""A head that is sharded over the vocabulary: what its ranks tell one another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp, all_reduce

from concise_rl.kernels.tiles import Statistics


def merged(statistics: Statistics, group: Any) -> Statistics:
    """The statistics of the whole vocabulary from those of its shards, one a rank of `group`; None is one shard."""
    if group is None:
        return statistics
    largest_N = statistics.max_N.clone()
    all_reduce(largest_N, op=ReduceOp.MAX, group=group)
    shift_N = statistics.max_N - largest_N
    scale_N = shift_N.exp()
    sum_shifted_N = (statistics.sum_shifted_N + shift_N * statistics.sum_exp_N) * scale_N
    sums_3N = torch.stack([statistics.sum_exp_N * scale_N, sum_shifted_N, statistics.target_logit_N])
    all_reduce(sums_3N, group=group)
    return Statistics(largest_N, *sums_3N.unbind())


def summed(gradient: Tensor | None, group: Any) -> Tensor | None:
    """The gradient of hidden states that every shard read, summed over the shards in place."""
    if gradient is not None and group is not None:
        all_reduce(gradient, group=group)
    return gradient
