"""What a rank samples, and what a finished step tells: the carriers before and after the `RolloutBatch`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from concise_rl.batch import PHASE_FIELDS, RolloutBatch
from concise_rl.verifiers import Verdict

REPETITION_PART = "parts.repetition"
"""A component asks for the share of repeated tokens by this name; the trainer counts it from the sampled ids."""


@dataclass(frozen=True)
class TokenVocabulary:
    """What a collector must know of the tokenizer.

    Attributes:
        eos_ids: every token that ends a completion.
        think_end_id: the single token `</think>`, or None where the tokenizer lacks it.
    """

    eos_ids: frozenset[int]
    think_end_id: int | None = None

    def cut_off(self, token_ids: Sequence[int]) -> bool:
        """Whether the token limit came before the completion's end."""
        return not token_ids or token_ids[-1] not in self.eos_ids

    def check(self, needs: Collection[str], think_end: str = "</think>") -> None:
        """Refuse a method that reads phases when the tokenizer has no think tag."""
        phases = sorted(PHASE_FIELDS & set(needs))
        if phases and self.think_end_id is None:
            raise ValueError(
                f"this method needs {', '.join(phases)}, but the tokenizer has no single token {think_end!r}: "
                "name the model's own tag with model.think_end=..., or choose a method without phases"
            )


def single_token(tokenizer: Any, text: str) -> int | None:
    """The id of `text` where the tokenizer has it as one token of its vocabulary, else None."""
    token = tokenizer.convert_tokens_to_ids(text)
    return None if token is None or token == tokenizer.unk_token_id else int(token)


@dataclass(frozen=True)
class LocalRollout:
    """One sampled completion on the rank that sampled it, judged.

    Attributes:
        prompt_id: content key of its prompt.
        prompt: the prompt as the model saw it, for people and logs.
        token_ids: sampled ids, EOS included when there is one.
        completion: their text.
        verdict: the verifier's.
        columns: dataset columns of its prompt.
        entropies, logprobs: (len(token_ids),) float32 in nats, or None where no component asked.
    """

    prompt_id: str
    prompt: str
    token_ids: Sequence[int]
    completion: str
    verdict: Verdict
    columns: Mapping[str, Any]
    entropies: np.ndarray | None = None
    logprobs: np.ndarray | None = None


@dataclass(frozen=True)
class StepRecord:
    """One finished step of shaping, for logs: the batch, what the method made of it, and the texts.

    Attributes:
        batch: what was scored.
        reward: (N,) shaped reward.
        credit: (N,) or (N, T).
        prompts: (P,) texts.
        completions: (N,) texts.
        metrics: scalars of this generation, without those of the update.
    """

    batch: RolloutBatch
    reward: Tensor
    credit: Tensor
    prompts: list[str]
    completions: list[str]
    metrics: dict[str, float]


class StepSink(Protocol):
    """Whoever wants to see the steps: logs, displays, trackers. Called on the main process alone."""

    def on_rollouts(self, record: StepRecord) -> None:
        """Once a generation, before its update."""

    def on_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Once an optimizer step, after it; `step` counts from 1."""


def think_length(token_ids: Sequence[int], think_end_id: int | None) -> int:
    """Tokens before the first `</think>`; all of them where there is none."""
    for position, token in enumerate(token_ids):
        if token == think_end_id:
            return position
    return len(token_ids)
