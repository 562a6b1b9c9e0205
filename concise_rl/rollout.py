"""From one rank's ragged completions to the `RolloutBatch` that every rank holds; the only file that knows ranks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, PHASE_FIELDS, RolloutBatch
from concise_rl.shapers import repetition_fraction
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


def rank() -> tuple[int, int]:
    """The number of this process, and of how many."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def on_every_rank(value: Any) -> list[Any]:
    """Each rank's value, in rank order, on every rank."""
    _, ranks = rank()
    if ranks == 1:
        return [value]
    gathered = [None] * ranks
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def own_share(items: Sequence[Any]) -> Sequence[Any]:
    """Every n-th item for this one of n ranks."""
    own, ranks = rank()
    return items[own::ranks]


def rank_is_lost(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank is gone; gloo says so by its file names, others by a type."""
    return isinstance(error, getattr(torch.distributed, "DistError", ())) or "/gloo/" in str(error)


def every_rank(rows: list[LocalRollout]) -> list[LocalRollout]:
    """The rows of all ranks in rank order, on every rank: the only gather of a step."""
    return [row for rank_rows in on_every_rank(rows) for row in rank_rows]


def collect(
    local: list[LocalRollout],
    *,
    group_size: int,
    step: int,
    vocabulary: TokenVocabulary,
    needs: Collection[str] = (),
    repetition_ngram: int = 0,
    gather: Callable[[list[LocalRollout]], list[LocalRollout]] = every_rank,
) -> tuple[RolloutBatch, list[str], list[str]]:
    """Gather every rank's rows and build the batch, with prompts (P,) and completions (N,) as texts.

    Rows come in rank order and each rank's are consecutive, so a group may lie astride two ranks. Optional fields
    are filled only as far as `needs` names them.

    Raises:
        ValueError: the gathered rows are no whole groups, a component's column is missing, or a number is not finite.
    """
    rows = gather(local)
    if not rows or len(rows) % group_size:
        raise ValueError(
            f"gathered {len(rows)} completions, which is no whole number of groups of {group_size}: make "
            "processes x per_device_train_batch_size x steps_per_generation a multiple of num_generations"
        )
    heads = rows[::group_size]
    for n, row in enumerate(rows):
        if row.prompt_id != heads[n // group_size].prompt_id:
            raise ValueError(f"completion {n} belongs to prompt {row.prompt_id}, not to that of its group")
    lengths = [len(row.token_ids) for row in rows]
    parts = _parts(rows)
    if repetition_ngram:
        parts["repetition"] = [repetition_fraction(row.token_ids, repetition_ngram) for row in rows]
    batch = RolloutBatch.of(
        prompt_ids=[row.prompt_id for row in heads],
        group_size=group_size,
        step=step,
        lengths=lengths,
        truncated=[vocabulary.cut_off(row.token_ids) for row in rows],
        correct=[row.verdict.correct for row in rows],
        scorable=[row.verdict.scorable for row in rows],
        task_reward=[row.verdict.reward for row in rows],
        think_lengths=[think_length(row.token_ids, vocabulary.think_end_id) for row in rows],
        parts=parts,
        columns=_columns(heads, needs),
        **_signals(rows, vocabulary, needs),
    )
    return batch, [row.prompt for row in heads], [row.completion for row in rows]


def think_length(token_ids: Sequence[int], think_end_id: int | None) -> int:
    """Tokens before the first `</think>`; all of them where there is none."""
    for position, token in enumerate(token_ids):
        if token == think_end_id:
            return position
    return len(token_ids)


def _parts(rows: Sequence[LocalRollout]) -> dict[str, list[float]]:
    names = sorted({name for row in rows for name in row.verdict.parts})
    return {name: [float(row.verdict.parts.get(name, 0.0)) for row in rows] for name in names}


def _columns(heads: Sequence[LocalRollout], needs: Collection[str]) -> dict[str, list[Any]]:
    wanted = sorted(name.removeprefix(COLUMN_PREFIX) for name in needs if name.startswith(COLUMN_PREFIX))
    for name in wanted:
        for head in heads:
            if name not in head.columns:
                raise ValueError(
                    f"the method needs the data set's column {name!r}; prompt {head.prompt_id} has only "
                    f"{sorted(head.columns)}: add it with data.columns=[{name}]"
                )
    return {name: [head.columns[name] for head in heads] for name in wanted}


def _signals(rows: Sequence[LocalRollout], vocabulary: TokenVocabulary, needs: Collection[str]) -> dict[str, Tensor]:
    """Entropy means and per-token fields, those that `needs` names."""
    signals: dict[str, Tensor] = {}
    if "mean_entropy" in needs:
        signals["mean_entropy"] = torch.tensor([_mean(row.entropies) for row in rows], dtype=torch.float64)
    if PHASE_FIELDS & set(needs):
        cuts = [think_length(row.token_ids, vocabulary.think_end_id) for row in rows]
        cut_rows = [(row.entropies, k) for row, k in zip(rows, cuts, strict=True) if row.entropies is not None]
        signals["think_entropy"] = torch.tensor([_mean(h[:k]) for h, k in cut_rows], dtype=torch.float64)
        signals["answer_entropy"] = torch.tensor([_mean(h[k + 1 :]) for h, k in cut_rows], dtype=torch.float64)
    for name in ("entropies", "logprobs"):
        if name in needs:
            ragged = [torch.from_numpy(np.asarray(getattr(row, name), dtype=np.float32)) for row in rows]
            signals[name] = torch.nn.utils.rnn.pad_sequence(ragged, batch_first=True)
    return signals


def _mean(values: np.ndarray | None) -> float:
    """Mean in float64; an empty phase is 0."""
    assert values is not None, "the trainer runs the forward pass when a component needs entropies"
    return float(np.mean(values, dtype=np.float64)) if len(values) else 0.0


def step_metrics(
    batch: RolloutBatch, reward: Tensor, credit: Tensor, *, taught: RolloutBatch | None = None
) -> dict[str, float]:
    """The scalars that every method logs, whatever it shapes. Keys are explained in the metric glossary.

    Args:
        batch: as it was judged.
        reward: (N,) shaped.
        credit: (N,) or (N, T).
        taught: the batch as the method saw it, where rows were left out; rewards and credits are counted over it.
    """
    taught = taught or batch
    credit_N = credit if credit.ndim == 1 else credit.sum(dim=1)
    touched_N = credit != 0 if credit.ndim == 1 else (credit != 0).any(dim=1)
    scorable, correct, lengths = batch.scorable, batch.correct, batch.lengths.double()

    def mean(values: Tensor, of: Tensor | None = None) -> float:
        chosen = values.double() if of is None else values.double()[of]
        return float(chosen.mean()) if chosen.numel() else 0.0

    metrics = {
        "accuracy": mean(correct, scorable),
        "mean_tokens": mean(lengths),
        "truncated_frac": mean(batch.truncated),
        "unscorable_frac": mean(~scorable),
        "reward": mean(reward, taught.scorable),
        "task_reward": mean(batch.task_reward, taught.scorable),
        "zero_variance_frac": mean(taught.without_variance(reward)),
        "zero_credit_frac": mean(~touched_N),
        "wiped_correct_frac": mean(credit_N < 0, correct & taught.scorable),
    }
    if bool((correct & scorable).any()):
        metrics["mean_tokens_correct"] = mean(lengths, correct & scorable)
    if bool((~correct & scorable).any()):
        metrics["mean_tokens_wrong"] = mean(lengths, ~correct & scorable)
    if batch.mean_entropy is not None:
        metrics["mean_entropy"] = mean(batch.mean_entropy)
    return metrics
