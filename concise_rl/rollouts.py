"""What a rank samples, and what a finished step tells: the carriers before and after the `RolloutBatch`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from concise_rl.batch import PHASE_FIELDS, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.verifiers import Verdict


@dataclass(frozen=True)
class TokenVocabulary:
    """What a collector must know of the tokenizer.

    Attributes:
        eos_ids: every token that ends a completion.
        think_end_id: the single token that ends thinking, or None where the tokenizer lacks it.
        think_end: the text of that tag.
    """

    eos_ids: frozenset[int]
    think_end_id: int | None = None
    think_end: str = "</think>"

    def cut_off(self, token_ids: Sequence[int]) -> bool:
        """Whether the token limit came before the completion's end."""
        return not token_ids or token_ids[-1] not in self.eos_ids

    def check(self, needs: Collection[str]) -> None:
        """Refuse a method that reads phases when the tokenizer has no think tag."""
        phases = sorted(PHASE_FIELDS & set(needs))
        if phases and self.think_end_id is None:
            raise UserError(
                f"this method needs {', '.join(phases)}, but the tokenizer has no single token {self.think_end!r}: "
                "name the model's own tag with model.think_end=..., or choose a method without phases"
            )


def single_token(tokenizer: Any, text: str) -> int | None:
    """The id of `text` where the tokenizer has it as one token of its vocabulary, else None."""
    token = tokenizer.convert_tokens_to_ids(text)
    return None if token is None or token == tokenizer.unk_token_id else int(token)


@dataclass(frozen=True)
class PolicyPrompt:
    """A prompt as the policy reads it, on its way to a sampler.

    Attributes:
        key: content key.
        text: for people and logs.
        prompt_ids: its tokens.
        columns: dataset columns, and what an edit wrote.
        limit: the most tokens that a completion of it may sample.
        reference: what the verifier compares with.
    """

    key: str
    text: str
    prompt_ids: tuple[int, ...]
    columns: Mapping[str, Any]
    limit: int
    reference: str = ""


@dataclass(frozen=True)
class TokenRequest:
    """One piece of a completion to be sampled.

    Attributes:
        prompt_ids: tokens of the prompt.
        limit: the most tokens to sample.
        start: tokens of the completion that are already there, sampled or forced; they are continued.
        seed: of this request alone; a back end without seeds a row draws anew.
    """

    prompt_ids: tuple[int, ...]
    limit: int
    start: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Sampled:
    """What was sampled for one request.

    Attributes:
        token_ids: the sampled tokens alone, EOS included where there is one.
        logprobs: of these tokens under the engine that sampled them, or None.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None


class Generate(Protocol):
    """What a sampler asks for tokens. Requests are dealt evenly over ranks; every rank gets all answers, in order."""

    vocabulary: TokenVocabulary

    def __call__(self, requests: Sequence[TokenRequest]) -> list[Sampled]: ...

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that is put into the model's mouth; a tag of the vocabulary is its special token."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, tags included."""
        ...


class Finish(str, Enum):
    """How a completion came to its end.

    - `eos`: the policy ended it.
    - `limit`: it reached its limit.
    - `budget`: a thinking budget closed its thought, and the policy answered.
    - `forced`: the sampler put tokens into it otherwise, or ended it.
    - `cut`: the method cut it, once it was judged.
    """

    eos = "eos"
    limit = "limit"
    budget = "budget"
    forced = "forced"
    cut = "cut"


@dataclass(frozen=True)
class LocalRollout:
    """One sampled completion on the rank that sampled it.

    Attributes:
        prompt_key: content key of its prompt.
        prompt: the prompt as the model saw it, for people and logs.
        token_ids: all tokens of the completion, EOS included when there is one.
        completion: their text.
        verdict: the verifier's; None before it was judged.
        columns: dataset columns of its prompt, and what an edit wrote.
        limit: the most tokens that it was allowed to sample; None: as many as it has.
        reference: what the verifier compared with; empty before it was judged.
        sampled: (len(token_ids),) bool, the tokens that the policy chose, neither forced nor of a tool; None: all.
        trained: (len(token_ids),) bool, the tokens that enter the loss; None: those that were sampled. A prefix that
            several rows share is trained in one of them.
        drawn: place to log-probability of a trained token that the sampler drew itself, such as which way a row
            begins; the loss takes it as the old log-probability. A sampler that draws says `needs` logprobs.
        finish: how it ended; None: as its last token says.
        sampler_logprobs: of its tokens under the engine that sampled them, 0 where nothing was sampled; or None.
        version: optimizer steps that the weights had taken which sampled it; None: those that learn from it.
        costs: what it cost besides tokens (`context_tokens`, `turns`).
        parts: row values that the sampler knows, such as which budget a row had.
        entropies, logprobs: (len(token_ids),) float32 in nats, or None where no component asked.
    """

    prompt_key: str
    prompt: str
    token_ids: Sequence[int]
    completion: str
    verdict: Verdict | None
    columns: Mapping[str, Any]
    limit: int | None = None
    reference: str = ""
    sampled: Sequence[bool] | None = None
    trained: Sequence[bool] | None = None
    drawn: Mapping[int, float] = field(default_factory=dict)
    finish: Finish | None = None
    sampler_logprobs: Sequence[float] | None = None
    version: int | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    entropies: np.ndarray | None = None
    logprobs: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Sampled tokens, EOS included."""
        return len(self.token_ids) if self.sampled is None else sum(map(bool, self.sampled))

    def first(self, n: int) -> LocalRollout:
        """The completion up to its n-th sampled token, as the method cut it: without text and verdict, which are of
        all of it."""
        own = np.ones(len(self.token_ids), dtype=bool) if self.sampled is None else np.asarray(self.sampled, dtype=bool)
        end = int(np.flatnonzero(own)[n - 1]) + 1

        def head(values: Any) -> Any:
            return None if values is None else values[:end]

        return replace(
            self,
            token_ids=self.token_ids[:end],
            completion="",
            verdict=None,
            limit=n,
            sampled=head(self.sampled),
            trained=head(self.trained),
            drawn={place: logprob for place, logprob in self.drawn.items() if place < end},
            finish=Finish.cut,
            sampler_logprobs=head(self.sampler_logprobs),
        )

    def finished(self, vocabulary: TokenVocabulary) -> Finish:
        """`finish`, or what the last token says."""
        if self.finish is not None:
            return self.finish
        return Finish.limit if vocabulary.cut_off(self.token_ids) else Finish.eos


@dataclass(frozen=True)
class StepRecord:
    """One finished step of shaping, for logs: the batch, what the method made of it, and the texts.

    Attributes:
        batch: what was scored; `counts` says which rows taught.
        reward: (N,) shaped reward.
        credit: (N,) or (N, T).
        prompts: (P,) texts.
        completions: (N,) texts.
        metrics: scalars of this generation, without those of the update.
        finishes: (N,) how each completion ended.
    """

    batch: RolloutBatch
    reward: Tensor
    credit: Tensor
    prompts: list[str]
    completions: list[str]
    metrics: dict[str, float]
    finishes: list[str] = field(default_factory=list)

    @property
    def credit_N(self) -> Tensor:
        """(N,), that of a row's tokens summed up."""
        return per_row(self.credit)


def per_row(credit: Tensor) -> Tensor:
    """Credit (N,) or (N, T) as (N,), that of a row's tokens summed up."""
    return credit if credit.ndim == 1 else credit.sum(dim=1)


class StepSink(Protocol):
    """Whoever wants to see the steps: logs, displays, trackers. Called on the main process alone."""

    def on_rollouts(self, record: StepRecord) -> None:
        """Once a generation, before its update."""

    def on_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Once an optimizer step, after it; `step` counts from 1."""


def think_end_position(token_ids: Sequence[int], think_end_id: int | None) -> int:
    """Where the first think-end tag stands among all tokens; behind the last one where there is none."""
    try:
        return len(token_ids) if think_end_id is None else token_ids.index(think_end_id)
    except ValueError:
        return len(token_ids)


def think_length(token_ids: Sequence[int], think_end_id: int | None, sampled: Sequence[bool] | None = None) -> int:
    """Sampled tokens before the first think-end tag, whoever put it there; all of them where there is none."""
    end = think_end_position(token_ids, think_end_id)
    return end if sampled is None else sum(map(bool, sampled[:end]))
