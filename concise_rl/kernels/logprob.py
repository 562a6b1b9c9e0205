"""`linear_logprob`: log-prob, entropy and log-sum-exp of sampled tokens straight from hidden states and head.

Two sweeps over the tiles: the statistics forward (one product), the gradient backward (each tile made again, then up to
two products). `docs/kernels.md` counts operations and bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from concise_rl.kernels import backends, reference, shards
from concise_rl.kernels.arguments import Entropy, flatten, gradient_follows
from concise_rl.kernels.tiles import Projection, Statistics, Upstream, sweep_gradients


class LogProbs(NamedTuple):
    """Of each row: log-prob of the target, entropy of its distribution (nats; None if not asked for), log-sum-exp."""

    logprob: Tensor
    entropy: Tensor | None
    lse: Tensor


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    entropy: Entropy = "none",
    softcap: float | None = None,
    logit_scale: float = 1.0,
    vocab_start: int = 0,
    group: Any = None,
    backend: str = "auto",
    workspace_mb: float | None = None,
) -> LogProbs:
    """Log-probs of `targets` under softmax(z), z = logit_scale * (h W^T + b) / temperature.

    With a soft-cap c the logits are c * tanh(logit_scale * (h W^T + b) / c), then divided by the temperature.

    Args:
        hidden: (..., H), float32, bfloat16, float16 or float64.
        weight: (V, H), the head, or the shard of it that starts at token `vocab_start`.
        targets: (...), int64; a negative label does not count.
        bias: (V,).
        temperature: one number, or one a row, (...).
        mask: (...); rows with 0 are dropped before the projection. They get 0 in every output and no gradient.
        entropy: "none"; "nograd" computes it for logs; "grad" lets the loss depend on it.
        softcap: of the logits (Gemma); None for none.
        logit_scale: of the logits (Cohere, Granite).
        vocab_start, group: for a head that is sharded over the vocabulary, this shard's first token and the process
            group that holds the others. `hidden` must be the same on all of its ranks, and so are the outputs and the
            gradient of `hidden`.
        backend: "auto", "reference", "blocked" or "triton"; see `concise_rl.kernels.backends`.
        workspace_mb: most memory for tiles; the backend's own choice where None.

    Returns:
        `LogProbs`, float32 (float64 for float64 inputs), of targets' shape. All are differentiable in hidden, weight
        and bias, entropy where "grad" was asked for. Products and both gradients are accumulated in float32.

    Raises:
        UserError: shapes that do not fit, a target outside the vocabulary, a temperature that is not positive, or a
            backend that is not to be had here.
    """
    chosen = backends.choose(backend, hidden.device, workspace_mb)
    rows = flatten(
        hidden,
        weight,
        targets,
        bias=bias,
        temperature=temperature,
        mask=mask,
        softcap=softcap,
        logit_scale=logit_scale,
        vocab_start=vocab_start,
        group=group,
        scale_hidden=chosen.scale_hidden,
    )
    p = rows.projection
    if chosen.name == "reference":
        logprob_K, entropy_K, lse_K = reference.log_probs(p)
    else:
        follows = gradient_follows(p.hidden_NH, p.weight_VH, p.bias_V)
        call = _Call(chosen, entropy, group, follows, p.target_N, p.pre_N, p.post_N)
        logprob_K, entropy_K, lse_K = _LinearLogProb.apply(p.hidden_NH, p.weight_VH, p.bias_V, call)
    if entropy == "nograd":
        entropy_K = entropy_K.detach()
    spread_entropy = None if entropy == "none" else rows.spread(entropy_K)
    return LogProbs(rows.spread(logprob_K), spread_entropy, rows.spread(lse_K))


@dataclass(frozen=True)
class _Call:
    """What `_LinearLogProb` needs beside the tensors that it differentiates."""

    backend: backends.Backend
    entropy: Entropy
    group: Any
    gradient_follows: bool
    target_N: Tensor
    pre_N: Tensor | None
    post_N: Tensor | None

    def projection(self, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None) -> Projection:
        return Projection(hidden_NH, weight_VH, bias_V, self.target_N, self.pre_N, self.post_N)


class _LinearLogProb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, call: _Call
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)  # an entropy that is only logged costs nothing backward
        projection = call.projection(hidden_NH, weight_VH, bias_V)
        statistics = call.backend.statistics(
            projection, entropy=call.entropy != "none", gradient_follows=call.gradient_follows
        )
        statistics = shards.merged(statistics, call.group)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, *vars(statistics).values())
        ctx.call = call
        return statistics.logprob_N, statistics.entropy_N, statistics.lse_N

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, logprob_grad_N: Tensor | None, entropy_grad_N: Tensor | None, lse_grad_N: Tensor | None
    ) -> Any:
        hidden_NH, weight_VH, bias_V, *saved = ctx.saved_tensors
        call: _Call = ctx.call
        if logprob_grad_N is None and entropy_grad_N is None and lse_grad_N is None:
            return None, None, None, None
        upstream = Upstream.of(Statistics(*saved), logprob_grad_N, entropy_grad_N, lse_grad_N)
        found = sweep_gradients(
            call.projection(hidden_NH, weight_VH, bias_V),
            call.backend.fold(),
            call.backend.shape,
            upstream,
            hidden=ctx.needs_input_grad[0],
            weight=ctx.needs_input_grad[1],
            bias=ctx.needs_input_grad[2],
        )
        hidden_grad_NH = shards.summed(found.hidden_NH, call.group)
        if hidden_grad_NH is not None:
            hidden_grad_NH = hidden_grad_NH.to(hidden_NH.dtype)
        return hidden_grad_NH, found.weight_VH, found.bias_V, None
