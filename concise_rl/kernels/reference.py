"""Log-prob and entropy written out: the specification of the other backends, and their oracle in float64."""

from __future__ import annotations

from torch import Tensor

from concise_rl.kernels.tiles import Projection


def log_probs(projection: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """Log-prob of the targets, entropy, and log-sum-exp, (N,) each, of logits that do exist; autograd differentiates.

    z = pre * (h W^T + b), with a soft-cap post * tanh(z); lse = log sum_j exp z_j; logprob = z_target - lse;
    entropy = -sum_j p_j log p_j with p = exp(z - lse).
    """
    logits_NV = projection.hidden_NH.to(projection.dtype) @ projection.weight_VH.to(projection.dtype).t()
    if projection.bias_V is not None:
        logits_NV = logits_NV + projection.bias_V.to(projection.dtype)
    if projection.pre_N is not None:
        logits_NV = logits_NV * projection.pre_N[:, None]
    if projection.post_N is not None:
        logits_NV = logits_NV.tanh() * projection.post_N[:, None]
    lse_N = logits_NV.logsumexp(dim=1)
    logprob_NV = logits_NV - lse_N[:, None]
    logprob_N = logprob_NV.gather(1, projection.target_N[:, None]).squeeze(1)
    entropy_N = -(logprob_NV.exp() * logprob_NV).sum(dim=1)
    return logprob_N, entropy_N, lse_N
