"""From each rank's ragged completions to the `RolloutBatch` that every rank holds: the only gather of a step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, PHASE_FIELDS, RolloutBatch
from concise_rl.methods.shapers import repetition_fraction
from concise_rl.ranks import on_every_rank
from concise_rl.rollouts import LocalRollout, TokenVocabulary, think_length


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
