"""What both public operations take, checked, flattened, and without the rows that do not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from concise_rl.errors import UserError
from concise_rl.kernels.tiles import Projection, tile_dtype

Entropy = Literal["none", "nograd", "grad"]


@dataclass(frozen=True)
class FlatRows:
    """The rows that count, and the way back to the caller's shape.

    Attributes:
        projection: of the K rows that count.
        kept_K: their places among all flattened rows; None where all of them count.
        shape: of the caller's targets.
    """

    projection: Projection
    kept_K: Tensor | None
    shape: torch.Size

    def spread(self, values_K: Tensor) -> Tensor:
        """Back to the caller's shape, 0 in the rows that do not count."""
        if self.kept_K is None:
            return values_K.view(self.shape)
        return values_K.new_zeros(self.shape.numel()).index_copy(0, self.kept_K, values_K).view(self.shape)

    @property
    def flat_K(self) -> Tensor:
        """The place of each row that counts among all flattened rows."""
        if self.kept_K is not None:
            return self.kept_K
        return torch.arange(self.shape.numel(), device=self.projection.target_N.device)


def gradient_follows(*tensors: Tensor | None) -> bool:
    """Whether autograd may ask for one's gradient; a function's own `needs_input_grad` is true under `no_grad` too."""
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)


def flatten(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None,
    temperature: float | Tensor,
    mask: Tensor | None,
    softcap: float | None,
    logit_scale: float,
    vocab_start: int,
    group: Any,
    scale_hidden: bool,
) -> FlatRows:
    """See `linear_logprob` for the arguments.

    Args:
        scale_hidden: multiply the scale into the hidden states where that is the same and saves a pass over the tiles.

    Raises:
        UserError: shapes that do not fit, a temperature or soft-cap that is not positive, a target out of range.
    """
    _check_shapes(hidden, weight, targets, bias, mask, temperature)
    if hidden.is_cuda and torch.is_autocast_enabled("cuda"):  # which the products here, into memory of ours, do not see
        dtype = torch.get_autocast_dtype("cuda")
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if softcap is not None and softcap <= 0:
        raise UserError(f"softcap={softcap}: must be positive, or None for none")
    target_N = targets.reshape(-1)
    counts_N = target_N >= 0
    if mask is not None:
        counts_N = counts_N & mask.reshape(-1).bool()
    hidden_NH, kept_K = hidden.reshape(-1, hidden.shape[-1]), None
    temperature_N = _per_row(temperature, targets.shape)
    if not bool(counts_N.all()):
        kept_K = counts_N.nonzero().squeeze(1)
        hidden_NH, target_N = hidden_NH[kept_K], target_N[kept_K]
        temperature_N = temperature_N[kept_K] if isinstance(temperature_N, Tensor) else temperature_N
    if isinstance(temperature_N, Tensor):
        temperature_N = temperature_N.to(tile_dtype(hidden))
    local_N = _local(target_N, vocab_start, len(weight), sharded=group is not None)

    scale = logit_scale / (softcap if softcap is not None else temperature_N)
    pre_N = _column(scale, hidden_NH)
    post_N = None if softcap is None else _column(softcap / temperature_N, hidden_NH, always=True)
    if scale_hidden and pre_N is not None and bias is None:
        hidden_NH, pre_N = hidden_NH.to(pre_N.dtype) * pre_N[:, None], None
    return FlatRows(Projection(hidden_NH, weight, bias, local_N, pre_N, post_N), kept_K, targets.shape)


def _check_shapes(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, mask: Tensor | None, temperature: Any
) -> None:
    def shape(tensor: Tensor) -> Sequence[int]:
        return tuple(tensor.shape)

    if hidden.shape[:-1] != targets.shape or weight.ndim != 2 or hidden.shape[-1:] != weight.shape[1:]:
        raise UserError(
            f"hidden {shape(hidden)}, weight {shape(weight)}, targets {shape(targets)}: need (..., H), (V, H) and (...)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise UserError(f"bias {shape(bias)}: must be ({len(weight)},), one for each row of weight")
    for name, value in (("mask", mask), ("temperature", temperature)):
        if isinstance(value, Tensor) and value.shape != targets.shape and (name == "mask" or value.ndim):
            raise UserError(f"{name} {shape(value)}: must have the shape of targets, {shape(targets)}")


def _per_row(temperature: float | Tensor, shape: torch.Size) -> float | Tensor:
    lowest = temperature.min() if isinstance(temperature, Tensor) and temperature.numel() else temperature
    if isinstance(temperature, Tensor) and not temperature.numel():
        return 1.0
    if not bool(lowest > 0):
        raise UserError(f"temperature={float(lowest):g}: must be positive; greedy decoding has no log-probs to compare")
    return temperature.expand(shape).reshape(-1) if isinstance(temperature, Tensor) else temperature


def _local(target_N: Tensor, vocab_start: int, size: int, *, sharded: bool) -> Tensor:
    local_N = target_N - vocab_start
    inside_N = (local_N >= 0) & (local_N < size)
    if sharded:
        return local_N.where(inside_N, -1)
    if not bool(inside_N.all()):
        raise UserError(
            f"targets up to {int(target_N.max())} for a head of tokens {vocab_start} to {vocab_start + size - 1}: "
            "mark what does not count with -100 or the mask, or name the group that holds the other shards"
        )
    return local_N


def _column(value: float | Tensor, hidden_NH: Tensor, *, always: bool = False) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if value == 1.0 and not always:
        return None
    return torch.full((len(hidden_NH),), value, dtype=tile_dtype(hidden_NH), device=hidden_NH.device)
