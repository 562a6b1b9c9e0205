"""`linear_reverse_kl`: KL(student || teacher) over the whole vocabulary, straight from hidden states and two heads.

A strip of rows is projected through both heads, its divergence and the gradient of the student's logits are made where
they lie, and the strip's memory is used again: the (N, V) logits of neither model exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from concise_rl.errors import UserError
from concise_rl.kernels import backends
from concise_rl.kernels.arguments import flatten
from concise_rl.kernels.tiles import Projection, multiply, multiply_add, operand, strips
from concise_rl.kernels.torch_fold import finish_logits


class Divergence(NamedTuple):
    """The loss; and of each row, without gradient, its divergence and the student's entropy, in nats."""

    loss: Tensor
    kl: Tensor
    entropy: Tensor


def linear_reverse_kl(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    row_weight: Tensor,
    *,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
) -> Divergence:
    """sum over rows of row_weight * sum_j p_j (log p_j - log q_j), p of the student, q of the teacher.

    Args:
        hidden, weight, bias: the student's, as for `linear_logprob`; the loss is differentiable in them.
        teacher_hidden, teacher_weight, teacher_bias: the teacher's; the same vocabulary. No gradient reaches them.
        row_weight: (...).
        temperature: both models' logits are divided by it.
        mask, softcap, logit_scale: as for `linear_logprob`, of both.

    Raises:
        UserError: heads of two vocabularies, or shapes that do not fit.
    """
    if weight.shape[0] != teacher_weight.shape[0]:
        raise UserError(f"heads of {len(weight)} and {len(teacher_weight)} tokens have no divergence")
    options: dict[str, Any] = {"temperature": temperature, "mask": mask, "softcap": softcap}
    options |= {"logit_scale": logit_scale, "vocab_start": 0, "group": None, "scale_hidden": False}
    targets = torch.zeros(hidden.shape[:-1], dtype=torch.int64, device=hidden.device)
    rows = flatten(hidden, weight, targets, bias=bias, **options)
    with torch.no_grad():
        other = flatten(teacher_hidden, teacher_weight, targets, bias=teacher_bias, **options).projection
    p = rows.projection
    weight_K = row_weight.reshape(-1)[rows.flat_K].to(p.dtype)
    loss, kl_K, entropy_K = _ReverseKL.apply(p.hidden_NH, p.weight_VH, p.bias_V, _Call(p, other, weight_K))
    return Divergence(loss, rows.spread(kl_K), rows.spread(entropy_K))


@dataclass(frozen=True)
class _Call:
    student: Projection
    teacher: Projection
    weight_N: Tensor


class _ReverseKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, call: _Call
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        student, dtype = call.student, call.student.dtype
        tensors = (hidden_NH, weight_VH, bias_V)
        needed = zip(tensors, ctx.needs_input_grad[:3], strict=True)
        sums = [torch.zeros_like(t, dtype=dtype) if t is not None and need else None for t, need in needed]
        kl_N, entropy_N = call.weight_N.new_zeros(len(hidden_NH)), call.weight_N.new_zeros(len(hidden_NH))
        backend = backends.choose("auto", hidden_NH.device, None)
        for block in strips(student, backend.shape.rows, backend.strip_bytes // 2):
            hidden_nH = operand(hidden_NH[block])
            logprob_nv = _logprobs(student.rows(block))
            p_nv = logprob_nv.exp()
            entropy_N[block] = -(p_nv * logprob_nv).sum(dim=1)
            gap_nv = logprob_nv.sub_(_logprobs(call.teacher.rows(block)))
            kl_N[block] = (p_nv * gap_nv).sum(dim=1)
            # d/dz_j of sum_i p_i (log p_i - log q_i) is p_j (log p_j - log q_j - KL).
            dz_nv = gap_nv.sub_(kl_N[block, None]).mul_(p_nv).mul_(call.weight_N[block, None])
            _chain(dz_nv, student.rows(block))
            if sums[0] is not None:
                multiply_add(sums[0][block], dz_nv, operand(weight_VH))
            if sums[1] is not None:
                multiply_add(sums[1], dz_nv.t(), hidden_nH)
            if sums[2] is not None:
                sums[2] += dz_nv.sum(dim=0)
        ctx.gradients = [
            None if found is None or like is None else found.to(like.dtype)
            for found, like in zip(sums, tensors, strict=True)
        ]
        ctx.mark_non_differentiable(kl_N, entropy_N)
        return (call.weight_N * kl_N).sum(), kl_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor | None, *_: Any) -> Any:
        gradients, ctx.gradients = ctx.gradients, None
        if loss_grad is None or gradients is None:
            return None, None, None, None
        return *(None if gradient is None else gradient.mul_(loss_grad) for gradient in gradients), None


def _logprobs(rows: Projection) -> Tensor:
    """log softmax of a strip, (n, V), float32."""
    logits_nv = torch.empty(len(rows.hidden_NH), len(rows.weight_VH), dtype=rows.dtype, device=rows.hidden_NH.device)
    multiply(operand(rows.hidden_NH), operand(rows.weight_VH).t(), out=logits_nv)
    finish_logits(logits_nv, rows, 0)
    return logits_nv.sub_(logits_nv.logsumexp(dim=1, keepdim=True))


def _chain(dz_nv: Tensor, rows: Projection) -> None:
    """From the gradient of the logits to that of h W^T + b, in place."""
    if rows.post_N is not None:
        logits_nv = torch.empty_like(dz_nv)
        multiply(operand(rows.hidden_NH), operand(rows.weight_VH).t(), out=logits_nv)
        finish_logits(logits_nv, rows, 0)
        slope_nv = logits_nv.div_(rows.post_N[:, None]).square_().neg_().add_(1).mul_(rows.post_N[:, None])
        dz_nv.mul_(slope_nv)
    if rows.pre_N is not None:
        dz_nv.mul_(rows.pre_N[:, None])
