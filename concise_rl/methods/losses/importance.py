"""What a row weighs that other weights sampled: the bounded ratio of policy to sampler.

Formulas and settings are those of `trl.GRPOConfig.vllm_importance_sampling_*`, which TRL applies to what vLLM sampled,
after a scoring pass for it. The loss has the policy's log-probs in hand and needs no such pass. Truncated weights:
IMPALA, arXiv 1802.01561 section 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Importance:
    """w = pi / mu of a token, or of its whole row, within [low, high]: bounded there, or 0 outside.

    Attributes:
        mode: `token_truncate`, `token_mask`, `sequence_truncate` or `sequence_mask`.
        low, high: None knows no bound.
    """

    mode: str
    low: float | None = None
    high: float | None = None

    LOGGED: ClassVar = ("sampling/importance_sampling_ratio/mean", "sampling/sampling_logp_difference/mean")

    @property
    def needs_rows(self) -> bool:
        """Whether a token's weight is that of its row, the product of the row's ratios."""
        return self.mode.startswith("sequence")

    def weight(self, logprob: Tensor, sampler_logprob: Tensor, mask_NT: Tensor | None = None) -> Tensor:
        """The weight of each token, of logprob's shape, or (N, 1); a factor of its credit, without gradient.

        Args:
            logprob: under the policy, any shape; (N, T) where `needs_rows`.
            sampler_logprob: under the weights that sampled; where it is NaN the ratio is 1.
            mask_NT: the tokens that count, where `needs_rows`.
        """
        log_ratio = torch.nan_to_num(logprob.detach() - sampler_logprob, nan=0.0)
        if self.needs_rows:
            assert mask_NT is not None
            log_ratio = (log_ratio * mask_NT).sum(dim=1, keepdim=True)
        ratio = log_ratio.exp()
        if self.mode.endswith("truncate"):
            return ratio.clamp(min=self.low, max=self.high)
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)

    def diagnostics(self, logprob_NT: Tensor, sampler_NT: Tensor, mask_NT: Tensor) -> dict[str, Tensor]:
        """Sums over tokens for logs, under the names of TRL: the weights, and |log pi - log mu|."""
        weights_NT = self.weight(logprob_NT, sampler_NT, mask_NT).expand_as(logprob_NT)
        distance_NT = torch.nan_to_num(logprob_NT - sampler_NT, nan=0.0).abs()
        return {name: (v * mask_NT).sum() for name, v in zip(self.LOGGED, (weights_NT, distance_NT), strict=True)}
