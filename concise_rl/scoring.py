"""Log-probs of ragged rows without computing their padding: rows in chunks of like length, each trimmed to its own.

The values are those of one padded pass, to rounding: attention is causal, so what stands behind a row's end changes
nothing before it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK_ROWS = 32
"""Rows scored together: few enough that like lengths meet, enough that a step is no crowd of small passes."""

Score = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor | None]]
"""(input ids (R, L), attention mask (R, L), completion columns t) to log-probs (R, t) and entropies (R, t) or None."""


def score_ragged(
    score: Score,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_T: int,
    *,
    idle_N: Tensor | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> tuple[Tensor, Tensor | None]:
    """Log-probs and entropies, (N, T) each, 0 behind a row's end and in idle rows.

    Args:
        score: scores rows that are padded to one length.
        input_ids, attention_mask: (N, P + T), prompts padded on the left, completions on the right.
        completion_T: T, the columns of the completions.
        idle_N: rows that are left out; where all are, the shortest is scored all the same, so that every rank runs
            forward and backward.
        chunk_rows: rows scored together.
    """
    prompt_P = input_ids.shape[1] - completion_T
    lengths_N = attention_mask[:, prompt_P:].sum(dim=1)
    order = lengths_N.argsort(descending=True, stable=True)
    if idle_N is not None:
        order = order[~idle_N[order]] if not bool(idle_N.all()) else order[-1:]
    logprobs, entropies = [], []
    for rows in order.split(chunk_rows):
        used_t = max(1, int(lengths_N[rows[0]]))
        columns = slice(None, prompt_P + used_t)
        logprob, entropy = score(input_ids[rows, columns], attention_mask[rows, columns], used_t)
        logprobs.append(_widen(logprob, completion_T))
        if entropy is not None:
            entropies.append(_widen(entropy, completion_T))
    n_rows = len(input_ids)
    return _to_rows(logprobs, order, n_rows), _to_rows(entropies, order, n_rows) if entropies else None


def _widen(values: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, columns - values.shape[1]))


def _to_rows(chunks: list[Tensor], order: Tensor, n_rows: int) -> Tensor:
    stacked = torch.cat(chunks)
    return stacked.new_zeros(n_rows, stacked.shape[1]).index_copy(0, order, stacked)
