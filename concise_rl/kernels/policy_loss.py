"""`linear_policy_loss`: a policy loss and its gradients in one sweep over the vocabulary.

Where the loss of a token is a function of its own log-prob and entropy (on-policy, clipped ratio, CISPO, KL to stored
reference log-probs, entropy bonus), dL/dlogprob is known as soon as the row's statistics are. A strip of rows is
projected once, its loss differentiated, and its logits turned into their gradient where they lie: three matrix products
instead of the four of `linear_logprob`, two where the head is frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from concise_rl.errors import UserError
from concise_rl.kernels import backends, shards
from concise_rl.kernels.arguments import Entropy, FlatRows, flatten, gradient_follows
from concise_rl.kernels.logprob import LogProbs, linear_logprob
from concise_rl.kernels.tiles import (
    Gradients,
    Projection,
    Statistics,
    Upstream,
    multiply,
    multiply_add,
    operand,
    strips,
)

TokenLoss = Callable[[Tensor, Tensor | None, Tensor], Tensor]
"""(log-probs (n,), entropies (n,) or None, the rows' places among all flattened rows (n,)) to losses (n,)."""


def linear_policy_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    token_loss: TokenLoss,
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
) -> tuple[Tensor, LogProbs]:
    """sum over rows of token_loss(logprob, entropy, row), differentiable in hidden, weight and bias.

    Args:
        hidden, weight, targets, bias, temperature, mask, softcap, logit_scale, vocab_start, group, backend: as for
            `linear_logprob`. Rows that do not count are not given to `token_loss`.
        token_loss: must be elementwise: the loss of a row may depend on that row's log-prob and entropy alone, and on
            whatever else the function knows of the row. It is called with one block of rows at a time, under autograd.
        entropy: "none" gives `token_loss` no entropy; "nograd" a constant one; "grad" lets the loss depend on it.
        workspace_mb: most memory for the logits of a strip of rows.

    Returns:
        The loss, and `LogProbs` without gradient, as `linear_logprob` returns them.

    Raises:
        UserError: as `linear_logprob`, or `token_loss` returns another shape than it was given.
    """
    chosen = backends.choose(backend, hidden.device, workspace_mb)
    options: dict[str, Any] = {"bias": bias, "temperature": temperature, "mask": mask, "softcap": softcap}
    options |= {"logit_scale": logit_scale, "vocab_start": vocab_start, "group": group}
    if chosen.name == "reference" or not gradient_follows(hidden, weight, bias):
        found = linear_logprob(
            hidden, weight, targets, entropy=entropy, backend=backend, workspace_mb=workspace_mb, **options
        )
        rows = flatten(hidden, weight, targets, scale_hidden=False, **options).flat_K
        entropy_K = None if found.entropy is None else found.entropy.reshape(-1)[rows]
        losses = _checked(token_loss, found.logprob.reshape(-1)[rows], entropy_K, rows)
        return losses.sum(), LogProbs(*(None if value is None else value.detach() for value in found))
    rows = flatten(hidden, weight, targets, scale_hidden=chosen.scale_hidden, **options)
    p = rows.projection
    call = _Call(chosen, entropy, group, token_loss, rows)
    loss, logprob_K, entropy_K, lse_K = _LinearPolicyLoss.apply(p.hidden_NH, p.weight_VH, p.bias_V, call)
    spread_entropy = None if entropy == "none" else rows.spread(entropy_K)
    return loss, LogProbs(rows.spread(logprob_K), spread_entropy, rows.spread(lse_K))


def _checked(token_loss: TokenLoss, logprob_n: Tensor, entropy_n: Tensor | None, rows_n: Tensor) -> Tensor:
    losses_n = token_loss(logprob_n, entropy_n, rows_n)
    if losses_n.shape != logprob_n.shape:
        raise UserError(
            f"token_loss gave {tuple(losses_n.shape)} for rows {tuple(logprob_n.shape)}: it must return one loss a row"
        )
    return losses_n


@dataclass(frozen=True)
class _Call:
    backend: backends.Backend
    entropy: Entropy
    group: Any
    token_loss: TokenLoss
    rows: FlatRows


class _LinearPolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, call: _Call
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        projection = call.rows.projection
        found = _empty_gradients(projection, ctx.needs_input_grad)
        total, statistics = _sweep(projection, call, found)
        found.hidden_NH = shards.summed(found.hidden_NH, call.group)
        ctx.gradients = [
            None if gradient is None or like is None else gradient.to(like.dtype)
            for gradient, like in zip(vars(found).values(), (hidden_NH, weight_VH, bias_V), strict=True)
        ]
        outputs = statistics.logprob_N, statistics.entropy_N, statistics.lse_N
        ctx.mark_non_differentiable(*outputs)
        return total, *outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor | None, *_: Any) -> Any:
        gradients, ctx.gradients = ctx.gradients, None
        if loss_grad is None:
            return None, None, None, None
        if gradients is None:
            raise RuntimeError("linear_policy_loss keeps its gradients for one backward pass: do not retain the graph")
        return *(None if gradient is None else gradient.mul_(loss_grad) for gradient in gradients), None


def _empty_gradients(projection: Projection, needed: Any) -> Gradients:
    """Sums in float32, for a head of half precision too: a strip adds to all of the vocabulary."""
    tensors = (projection.hidden_NH, projection.weight_VH, projection.bias_V)
    return Gradients(
        *(
            torch.zeros_like(tensor, dtype=projection.dtype) if tensor is not None and need else None
            for tensor, need in zip(tensors, needed[:3], strict=True)
        )
    )


def _sweep(projection: Projection, call: _Call, found: Gradients) -> tuple[Tensor, Statistics]:
    """The loss and the statistics; the gradients are added to `found`."""
    statistics = Statistics.empty(projection)
    total = statistics.max_N.new_zeros(())
    hidden_NH, flat_K, fold = operand(projection.hidden_NH), call.rows.flat_K, call.backend.fold()
    blocks = strips(projection, call.backend.shape.rows, call.backend.strip_bytes)
    rows = max((block.stop - block.start for block in blocks), default=0)
    memory = torch.empty(rows * len(projection.weight_VH), dtype=projection.dtype, device=hidden_NH.device)
    for block in blocks:
        strip = _Strip(projection.rows(block), hidden_NH[block], call, fold, memory)
        running = strip.project(statistics.rows(block))
        logprob_n, entropy_n = running.logprob_N.detach(), running.entropy_N.detach()
        loss, logprob_grad_n, entropy_grad_n = _differentiate(call, logprob_n, entropy_n, flat_K[block])
        total = total + loss
        upstream = Upstream.of(running, logprob_grad_n, entropy_grad_n, None)
        strip.add_gradients(upstream, found, block)
        if call.group is not None:
            for mine, whole in zip(vars(statistics.rows(block)).values(), vars(running).values(), strict=True):
                mine.copy_(whole)
    return total, statistics


def _differentiate(
    call: _Call, logprob_n: Tensor, entropy_n: Tensor, rows_n: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The summed loss of these rows and its gradient in log-prob and entropy."""
    with torch.enable_grad():
        logprob_n = logprob_n.requires_grad_()
        entropy_n = entropy_n.requires_grad_(call.entropy == "grad")
        loss = _checked(call.token_loss, logprob_n, None if call.entropy == "none" else entropy_n, rows_n).sum()
    if not loss.requires_grad:
        return loss.detach(), None, None
    inputs = [logprob_n, entropy_n] if call.entropy == "grad" else [logprob_n]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return loss.detach(), gradients[0], gradients[1] if len(gradients) > 1 else None


class _Strip:
    """Some rows over the whole vocabulary: their logits as tiles that all stay, side by side."""

    def __init__(self, rows: Projection, hidden_nH: Tensor, call: _Call, fold: Any, memory: Tensor) -> None:
        self.rows, self.hidden_nH, self.call, self.fold = rows, hidden_nH, call, fold
        n = len(hidden_nH)
        columns = call.backend.shape.widened(n).column_blocks(len(rows.weight_VH))
        self.tiles = [(c, memory[n * c.start : n * c.stop].view(n, c.stop - c.start)) for c in columns]

    def project(self, running: Statistics) -> Statistics:
        for columns, tile_nv in self.tiles:
            multiply(self.hidden_nH, operand(self.rows.weight_VH[columns]).t(), out=tile_nv)
            self.fold.statistics(tile_nv, self.rows, running, columns.start, entropy=self.call.entropy != "none")
        return shards.merged(running, self.call.group)

    def add_gradients(self, upstream: Upstream, found: Gradients, block: slice) -> None:
        for columns, tile_nv in self.tiles:
            dz_nv = self.fold.gradient(tile_nv, self.rows, upstream, columns.start)
            if found.hidden_NH is not None:
                multiply_add(found.hidden_NH[block], dz_nv, operand(self.rows.weight_VH[columns]))
            if found.weight_VH is not None:
                multiply_add(found.weight_VH[columns], dz_nv.t(), self.hidden_nH)
            if found.bias_V is not None:
                found.bias_V[columns] += dz_nv.sum(dim=0, dtype=found.bias_V.dtype)
