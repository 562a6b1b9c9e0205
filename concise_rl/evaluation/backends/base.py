"""What an evaluation asks of a model, whatever runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from concise_rl.data.base import Message
from concise_rl.errors import UserError


@dataclass(frozen=True)
class Completion:
    """What the model said once.

    Attributes:
        text: what the verifier reads: all of it but EOS and padding, think tags included.
        length: sampled tokens, EOS included.
        truncated: the limit came before EOS.
        think_length: sampled tokens before the first think-end tag; all of them where there is none; None where a
            server tells the tokens' number but not where the tag lies among them.
        tokens: the sampled tokens in order, as ids or as texts, EOS included; None where a server gives neither.
    """

    text: str
    length: int
    truncated: bool
    think_length: int | None
    tokens: tuple[int, ...] | tuple[str, ...] | None = None

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The tokens as ids; None where only texts are known."""
        ids = tuple(token for token in self.tokens or () if isinstance(token, int))
        return ids if self.tokens is not None and len(ids) == len(self.tokens) else None


@dataclass(frozen=True)
class Request:
    """One completion to be sampled, asked for in text, since a server may know no tokens of ours.

    Training asks in tokens, by `concise_rl.rollouts.TokenRequest`. Under greedy decoding a forced evaluation and a
    thinking budget in training give the same completions (`tests/engine/test_samplers.py`).

    Attributes:
        prompt: the prompt as text, up to where the model is to go on.
        messages: the same as chat messages, for a server that applies the template itself.
        seed: of this completion alone.
        start: what was sampled of this completion earlier, to be continued.
        closing: text put behind `start` as if the model had said it; it is not sampled, nor counted in any length.
        template: arguments of the chat template, for a server that applies it itself.
    """

    prompt: str
    messages: tuple[Message, ...]
    seed: int
    start: Completion | None = None
    closing: str = ""
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> str:
        """How the completion starts before anything is sampled."""
        return (self.start.text if self.start else "") + self.closing


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn, by every back end alike; no other setting of a model or a server applies.

    From softmax(logits / temperature), cut to the `top_k` likeliest tokens (0: all), of these to the fewest that hold
    `top_p` of the probability, and to those with at least `min_p` of the likeliest one's. Temperature 0 is greedy.

    Raises:
        UserError: a value out of its range.
    """

    max_new_tokens: int
    temperature: float
    top_p: float = 1.0
    think_end: str = "</think>"
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens}: a completion needs room for one token or more")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature={self.temperature}: give 0 (greedy) or a positive number")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p}: give a share of the probability in (0, 1]; 1 keeps every token")
        if self.top_k < 0:
            raise UserError(f"top_k={self.top_k}: give a number of tokens; 0 keeps every token")
        if not 0 <= self.min_p < 1:
            raise UserError(f"min_p={self.min_p}: give a share of the likeliest token's in [0, 1); 0 keeps every token")
        if not self.think_end:
            raise UserError("think_end is empty: name the tag that ends thinking, such as </think>")


Finished = Callable[[int, Completion], None]
"""Called with the place of a request in the list and what was sampled for it, as soon as it is there."""


@runtime_checkable
class Backend(Protocol):
    """A model that completes prompts."""

    def generate(self, requests: Sequence[Request], sampling: Sampling, finished: Finished) -> None:
        """Sample each request once and hand each over as soon as it is done, in any order, from this thread.

        Raises:
            UserError: a setting that the back end refuses, or a server that cannot be reached.
        """
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of sampled ids, without EOS and padding.

        Raises:
            UserError: the back end knows no tokenizer.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """What makes its completions comparable, as JSON values: name, model, weights where they are known."""
        ...
