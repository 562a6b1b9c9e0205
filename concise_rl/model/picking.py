"""One token a row from logits: the distribution that is drawn from, its cuts, and the log-prob of what was drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from concise_rl.errors import UserError


def pick_tokens(
    logits_RV: Tensor, uniform_R: Tensor, temperature: float, top_p: float, top_k: int, min_p: float = 0.0
) -> tuple[Tensor, Tensor]:
    """One token a row by inverting the distribution function at `uniform_R` in [0, 1); greedy at temperature 0.

    Returns:
        The tokens, (R,) int64, and their log-probs in nats under the distribution drawn from, after temperature and
        cuts, (R,) float64; greedy ones have 0.

    Raises:
        UserError: a row's logits are no distribution.
    """
    highest_R, greedy_R = logits_RV.max(dim=-1)
    check_finite(highest_R)
    if temperature == 0:
        return greedy_R, torch.zeros_like(greedy_R, dtype=torch.float64)
    probs_RV = torch.softmax(logits_RV.float() / temperature, dim=-1)
    order_RV = None
    if top_k > 0 or top_p < 1:
        probs_RV, order_RV = probs_RV.sort(dim=-1, descending=True, stable=True)
        if top_k > 0:
            probs_RV, order_RV = probs_RV[:, :top_k], order_RV[:, :top_k]
        before_RV = probs_RV.cumsum(dim=-1) - probs_RV
        probs_RV = probs_RV.masked_fill(before_RV >= top_p * probs_RV.sum(dim=-1, keepdim=True), 0.0)
    if min_p > 0:
        probs_RV = probs_RV.masked_fill(probs_RV < min_p * probs_RV.amax(dim=-1, keepdim=True), 0.0)
    cumulative_RV = probs_RV.double().cumsum(dim=-1)
    total_R1 = cumulative_RV[:, -1:]
    # The product may round up to the total, which lies behind the last token that has any probability.
    target_R1 = torch.minimum(uniform_R[:, None] * total_R1, torch.nextafter(total_R1, torch.zeros_like(total_R1)))
    index_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True)
    logprob_R1 = (probs_RV.gather(1, index_R1) / total_R1).log()
    token_R1 = index_R1 if order_RV is None else order_RV.gather(1, index_R1)
    return token_R1.squeeze(1), logprob_R1.squeeze(1)


def check_finite(highest_R: Tensor) -> None:
    """Refuse rows whose highest logit is NaN (any NaN makes it so) or infinite.

    Raises:
        UserError: there is such a row.
    """
    if not bool(torch.isfinite(highest_R).all()):
        raise UserError(
            "the model's logits are not finite, so nothing can be sampled: its weights hold NaN, or overflow in their "
            "dtype: take other weights or an older checkpoint, a lower learning rate, or model.dtype=float32"
        )
