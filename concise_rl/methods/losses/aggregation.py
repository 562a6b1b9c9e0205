"""How token losses become one number, where TRL's losses have no name for it."""

from __future__ import annotations

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch


def prompt_average_weights(batch: RolloutBatch) -> Tensor:
    """What each token of a row weighs so that every prompt weighs the same, (N,) float64: ScaleRL's "prompt average".

        w_n = 1 / (kept prompts * tokens of the row's prompt)

    A prompt is kept if one of its rows counts and has a token; its tokens are those of its rows that count. Rows that
    do not count weigh 0. The weights of all tokens of the step add up to 1. Source: arXiv 2510.13786 section 3.
    """
    tokens_N = torch.where(batch.counts, batch.lengths, 0).to(torch.float64)
    tokens_P = batch.by_group(tokens_N).sum(dim=1)
    kept = int((tokens_P > 0).sum())
    weights_N = batch.per_row(1 / (max(kept, 1) * tokens_P.clamp(min=1.0)))
    return torch.where(batch.counts & (tokens_N > 0), weights_N, 0.0)
