"""Prompts computed once for all of their completions, forward and backward.

The completions of a group read one prompt, and a prompt's states do not depend on what follows it. So each distinct
prompt passes the model once; every micro-batch of completions takes copies of its keys and values, cut from the graph,
and attends to them; what gradient the copies gather goes through the prompts once at the end. Loss and gradient are
those of the concatenated rows, to rounding (Prefix Grouper, arXiv 2506.05433, does it with two calls of attention).

Axes: P distinct prompts, W columns of the longest one (padding on the left), N rows, T columns of completions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from concise_rl.model.cache import positions


@dataclass(frozen=True)
class PromptStates:
    """What completions need of their prompts, a row each.

    Attributes:
        mask: (rows, W).
        hidden: (rows, H), the last layer's state at the prompt's last token, which predicts the first sampled one.
        keys, values: of each layer, (rows, heads, W, head size).
    """

    mask: Tensor
    hidden: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @classmethod
    def run(cls, model: Any, *, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> PromptStates:
        """One pass over prompts; given to a model's forward as `scoring` (see `scoring.add_scoring_head`)."""
        output = model.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions(attention_mask),
            past_key_values=DynamicCache(config=model.config),
            use_cache=True,
        )
        layers = output.past_key_values.layers
        keys, values = (tuple(getattr(layer, name) for layer in layers) for name in ("keys", "values"))
        return cls(attention_mask, output.last_hidden_state[:, -1], keys, values)

    @property
    def tensors(self) -> list[Tensor]:
        """Those that carry gradient."""
        return [self.hidden, *self.keys, *self.values]

    def cut(self) -> PromptStates:
        """The same values as leaves of a new graph."""
        leaf = [tensor.detach().requires_grad_() for tensor in self.tensors]
        layers = len(self.keys)
        return PromptStates(self.mask, leaf[0], tuple(leaf[1 : 1 + layers]), tuple(leaf[1 + layers :]))

    def take(self, rows_N: Tensor) -> PromptStates:
        """The states of these rows, trimmed to the longest prompt among them."""
        mask_NW = self.mask[rows_N]
        columns = slice(-int(mask_NW.sum(dim=1).max()), None)
        keys, values = (tuple(t[rows_N, :, columns] for t in tensors) for tensors in (self.keys, self.values))
        return PromptStates(mask_NW[:, columns], self.hidden[rows_N], keys, values)

    def continued(self, model: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States that predict the T tokens `input_ids` (N, T) behind these prompts, (N, T, H)."""
        first_N1H, fed_T = self.hidden[:, None], input_ids.shape[1] - 1  # the last token predicts nothing
        if not fed_T:
            return first_N1H
        positions_NT = self.mask.sum(dim=1, keepdim=True) + torch.arange(fed_T, device=input_ids.device)
        states = model.base_model(
            input_ids=input_ids[:, :fed_T],
            attention_mask=torch.cat([self.mask, attention_mask[:, :fed_T]], dim=1),
            position_ids=positions_NT,
            past_key_values=DynamicCache(list(zip(self.keys, self.values, strict=True)), config=model.config),
            use_cache=True,
        ).last_hidden_state
        return torch.cat([first_N1H.to(states.dtype), states], dim=1)


@dataclass(frozen=True)
class DistinctPrompts:
    """The P distinct ones among N prompts.

    Attributes:
        ids, mask: (P, W).
        of_row_N: each row's among them.
    """

    ids: Tensor
    mask: Tensor
    of_row_N: Tensor

    @classmethod
    def among(cls, prompt_ids: Tensor, prompt_mask: Tensor, active_N: Tensor | None = None) -> Self:
        """Those of the active rows, of all where None; the places of other rows mean nothing."""
        active = slice(None) if active_N is None else active_N
        columns = slice(-max(1, int(prompt_mask[active].sum(dim=1).max())), None)
        # Whatever stands under the padding is no part of a prompt.
        marked = torch.where(prompt_mask != 0, prompt_ids, -1)[active, columns]
        distinct, inverse = torch.unique(marked, dim=0, return_inverse=True)
        of_row_N = inverse.new_zeros(len(prompt_ids))
        of_row_N[active] = inverse
        return cls(distinct.clamp(min=0), (distinct >= 0).to(prompt_mask.dtype), of_row_N)


class SharedPrompts:
    """The states of distinct prompts under way: what completions take, and the way of their gradient.

    Args:
        of_row_N: the place of each row's prompt among the states.
        made: states with their graph, or without one where nothing is trained.
    """

    def __init__(self, of_row_N: Tensor, made: PromptStates) -> None:
        self.of_row_N, self._made = of_row_N, made
        self._read = made.cut() if torch.is_grad_enabled() else made

    def take(self, rows: Tensor) -> PromptStates:
        """The states of these rows' prompts."""
        return self._read.take(self.of_row_N[rows])

    def backward(self) -> None:
        """Pass on the gradient that all micro-batches together left; once, after the last of them."""
        pairs = [
            (made, read.grad)
            for made, read in zip(self._made.tensors, self._read.tensors, strict=True)
            if read.grad is not None and made.requires_grad
        ]
        if pairs:
            torch.autograd.backward(*(list(side) for side in zip(*pairs, strict=True)))
