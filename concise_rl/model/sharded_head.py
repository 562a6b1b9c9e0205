"""The head's weight whole, inside a model's own forward, however the run shards weights; its gradient to the owners.

Log-probs read the head's weight and never call its module, for which ZeRO-3 would gather it. FSDP2 gathers the head
with the outermost module, whose forward is running, and scatters the gradient after the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from concise_rl.errors import UserError


def whole(parameter: Tensor | None) -> Tensor | None:
    """All of a head's weight or bias, differentiable in the parameter; the parameter itself where nothing shards it.

    Under ZeRO-3 every rank must call this as often: it gathers, once a pass. What it gives stays until it was used.

    Raises:
        UserError: FSDP shards the head apart from the outermost module.
    """
    if isinstance(parameter, DTensor):
        raise UserError(
            "FSDP wraps the language-model head by itself, so its gradient would not be reduced: take it out of what "
            "fsdp_auto_wrap_policy wraps"
        )
    if parameter is None or not hasattr(parameter, "ds_id"):
        return parameter
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    there = parameter.ds_status == ZeroParamStatus.AVAILABLE  # an embedding's, and tied
    with deepspeed.zero.GatheredParameters([parameter], enabled=not there):
        return _Whole.apply(parameter)


class _Whole(torch.autograd.Function):
    """The gathered values under a name of their own: they outlive the parameter's, which are let go at once."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:
        return parameter.data

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
