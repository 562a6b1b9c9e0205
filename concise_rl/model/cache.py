"""The key-value cache of a decoder: which models have a plain one, and a layer of it that grows in place."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from concise_rl.errors import UserError


def supports_plain_cache(model: Any) -> bool:
    """Whether rows may be taken from and added to the model's key-value cache.

    So it is for a decoder that takes `position_ids` (rows of unequal age then know their places) and whose
    `DynamicCache` has full-attention layers only: these hold one column a token, so that padding on the left is hidden
    by the attention mask. Sliding windows drop columns and linear attention has none.
    """
    if getattr(model.config, "is_encoder_decoder", False) or not model._supports_default_dynamic_cache():
        return False
    if not {"position_ids", "past_key_values", "attention_mask"} <= forward_parameters(model):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def forward_parameters(model: Any) -> set[str]:
    """What the model's forward takes by name; an adapter's wrapper names fewer and hands the others on."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(inner.forward).parameters)


def positions(mask_RL: Tensor) -> Tensor:
    """The place of each token of left-padded rows among its row's own, from 0; padding has any."""
    return (mask_RL.cumsum(dim=1) - 1).clamp(min=0)


def takes_positions(backbone: Any) -> bool:
    """Whether a model's backbone takes `position_ids`: without them, padding on the left may shift its places."""
    return "position_ids" in inspect.signature(type(backbone).forward).parameters


def rotary_switch(config: Any) -> int | None:
    """The tokens up to which a model's rotary frequencies are fixed; None where they always are.

    LongRoPE and dynamic NTK choose the frequencies of a whole batch by its longest row.
    """
    text = config.get_text_config()
    named = getattr(text, "rope_parameters", None) or {}
    kinds = [named, *(value for value in named.values() if isinstance(value, dict))]
    switches = [
        rope.get("original_max_position_embeddings")
        or getattr(text, "original_max_position_embeddings", None)
        or text.max_position_embeddings
        for rope in kinds
        if rope.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(switches, default=None)


def check_context(config: Any, tokens: int, remedy: str) -> None:
    """Refuse rows of so many tokens where the model would change its rotary frequencies on the way.

    Raises:
        UserError: the rows cross the switch, with the remedy.
    """
    switch = rotary_switch(config)
    if switch is not None and tokens > switch:
        raise UserError(
            f"the model computes rows of more than {switch} tokens with other rotary frequencies, and takes the "
            f"longest row's for all of a batch: with rows of {tokens} results would depend on how a step is cut; "
            f"{remedy}"
        )


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` that keeps spare columns: a token is written in place, where its base copies the whole cache.

    `keys` and `values`, (R, heads, L, head size), are views of the columns in use, the first of them `start`.
    """

    keys: Tensor
    values: Tensor
    key_room: Tensor
    value_room: Tensor
    start: int = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.hold(key_states, value_states)
            return self.keys, self.values
        used, new = self.keys.shape[2], key_states.shape[2]
        if self.start + used + new > self.key_room.shape[2]:
            self.hold(self.keys, self.values)
        end = self.start + used
        self.key_room[:, :, end : end + new] = key_states
        self.value_room[:, :, end : end + new] = value_states
        self.show(self.start, used + new)
        return self.keys, self.values

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Move these columns into memory with room for more."""
        used = keys.shape[2]
        spare = max(32, used // 4)
        self.key_room, self.value_room = (
            torch.empty((*t.shape[:2], used + spare, t.shape[3]), dtype=t.dtype, device=t.device)
            for t in (keys, values)
        )
        self.key_room[:, :, :used], self.value_room[:, :, :used] = keys, values
        self.show(0, used)

    def keep(self, rows: Tensor, unused: int) -> None:
        """Keep these rows and forget the first `unused` columns; the spare ones stay."""
        begin, used = self.start + unused, self.keys.shape[2] - unused
        self.key_room, self.value_room = self.key_room[rows, :, begin:], self.value_room[rows, :, begin:]
        self.show(0, used)

    def show(self, start: int, used: int) -> None:
        """Use these columns of the memory."""
        self.start = start
        self.keys, self.values = (room[:, :, start : start + used] for room in (self.key_room, self.value_room))
