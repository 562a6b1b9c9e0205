"""The attention of TRL's asynchronous trainer in plain torch, where its kernel does not run.

TRL folds the rows of a micro-batch into a trie of their tokens, so that a shared prefix is computed once, and lets
FlashAttention 3 attend along each branch. That kernel needs a Hopper GPU and the package `kernels`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import AttentionInterface
from trl.experimental.async_grpo import async_grpo_trainer
from trl.experimental.async_grpo.packing import TREE_ATTENTION


def tree_attention(
    module: Any,
    query: Tensor,  # (1, heads, N, d)
    key: Tensor,  # (1, key heads, N, d)
    value: Tensor,
    attention_mask: Any,
    *,
    tree_kv_index: Tensor,
    tree_cu_seqlens_q: Tensor,
    tree_cu_seqlens_k: Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Each segment of the trie attends to the path from the root to its own tokens; (1, N, heads, d).

    Segment i has the queries q[i] to q[i + 1], and the keys that `tree_kv_index` names from k[i] to k[i + 1]; its last
    query is its last key.

    Raises:
        NotImplementedError: the model caps its attention scores.
    """
    if softcap:
        raise NotImplementedError(f"{type(module).__name__} caps attention scores, which needs TRL's kernel")
    parts, q_at, k_at = [], tree_cu_seqlens_q.tolist(), tree_cu_seqlens_k.tolist()
    for i in range(len(q_at) - 1):
        path = tree_kv_index[k_at[i] : k_at[i + 1]]
        queries = query[:, :, q_at[i] : q_at[i + 1]]
        keys = torch.arange(len(path), device=query.device)
        places = keys[len(path) - queries.shape[2] :, None]
        seen = keys <= places
        if sliding_window:
            seen &= keys > places - sliding_window
        parts.append(
            torch.nn.functional.scaled_dot_product_attention(
                queries, key[:, :, path], value[:, :, path], attn_mask=seen, scale=scaling, enable_gqa=True
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2), None


def has_kernel(device: torch.device) -> bool:
    """Whether TRL's own attention can run on a device."""
    if device.type != "cuda" or importlib.util.find_spec("kernels") is None:
        return False
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) == (9, 0)


@contextmanager
def trl_anywhere(device: torch.device) -> Iterator[None]:
    """Build TRL's asynchronous trainer inside: with the attention above where its own cannot run, and without a GPU."""
    if device.type == "cuda":
        yield
    else:  # TRL asks CUDA for the name of the device
        with mock.patch.object(async_grpo_trainer, "get_peak_flops_per_device", return_value=None):
            yield
    if not has_kernel(device):
        AttentionInterface.register(TREE_ATTENTION, tree_attention)
