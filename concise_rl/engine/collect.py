"""From ragged completions, those of all ranks, to the `RolloutBatch` that every rank holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, PART_PREFIX, PHASE_FIELDS, RolloutBatch
from concise_rl.methods.contracts import Component
from concise_rl.methods.repetition import REPETITION, repetition_fraction
from concise_rl.methods.texts import (
    THINK_END,
    count_reflections,
    difficulty_label,
    has_format,
    necessary_share,
    thought_of,
)
from concise_rl.rollouts import LocalRollout, TokenVocabulary, think_end_position, think_length
from concise_rl.verifiers import Verdict


@dataclass(frozen=True)
class Collected:
    """A step's rows on every rank: the batch, its prompts' and completions' texts, and how each completion ended."""

    batch: RolloutBatch
    prompts: list[str]
    completions: list[str]
    finishes: list[str]


def collect(
    rows: Sequence[LocalRollout],
    *,
    group_size: int,
    step: int,
    vocabulary: TokenVocabulary,
    needs: Collection[str] = (),
    repetition_ngram: int = 0,
) -> Collected:
    """Build the batch from the rows of all ranks, whole groups in a row.

    Rows come in rank order and each rank's are consecutive, so a group may have lain astride two ranks. Optional
    fields are filled only as far as `needs` names them.

    Raises:
        ValueError: the gathered rows are no whole groups, a component's column or part is missing, or a number is not
            finite.
    """
    if not rows or len(rows) % group_size:
        raise ValueError(
            f"gathered {len(rows)} completions, which is no whole number of groups of {group_size}: make "
            "processes x per_device_train_batch_size x steps_per_generation a multiple of num_generations"
        )
    heads = rows[::group_size]
    for n, row in enumerate(rows):
        if row.prompt_key != heads[n // group_size].prompt_key:
            raise ValueError(f"completion {n} belongs to prompt {row.prompt_key}, not to that of its group")
    verdicts = [row.verdict or Verdict.unscorable("not judged") for row in rows]
    batch = RolloutBatch.of(
        prompt_keys=[row.prompt_key for row in heads],
        group_size=group_size,
        step=step,
        lengths=[row.length for row in rows],
        limits=[row.length if row.limit is None else row.limit for row in rows],
        truncated=[vocabulary.cut_off(row.token_ids) for row in rows],
        correct=[verdict.correct for verdict in verdicts],
        scorable=[verdict.scorable for verdict in verdicts],
        task_reward=[verdict.reward for verdict in verdicts],
        think_lengths=[think_length(row.token_ids, vocabulary.think_end_id, row.sampled) for row in rows],
        parts=parts_of(rows, verdicts, needs, repetition_ngram, vocabulary.think_end),
        costs=_by_name([row.costs for row in rows]),
        columns=_columns(heads, needs),
        **_signals(rows, vocabulary, needs),
    )
    return Collected(
        batch,
        [row.prompt for row in heads],
        [row.completion for row in rows],
        [row.finished(vocabulary).value for row in rows],
    )


def repetition_ngram_of(components: Iterable[Component]) -> int:
    """The longest n-gram whose repetition one of these components asks for; 0 where none does."""
    asking = [c for c in components if PART_PREFIX + REPETITION in c.needs]
    return max((int(getattr(c, "repetition_ngram", 0)) for c in asking), default=0)


def parts_of(
    rows: Sequence[LocalRollout],
    verdicts: Sequence[Verdict],
    needs: Collection[str],
    repetition_ngram: int = 0,
    think_end: str = THINK_END,
) -> dict[str, list[float]]:
    """The row values of the verdicts, of the samplers, and those that a component needs and the text tells.

    Raises:
        ValueError: a component needs a part that none of them gives.
    """
    parts = _by_name([{**row.parts, **verdict.parts} for row, verdict in zip(rows, verdicts, strict=True)])
    if repetition_ngram:
        parts["repetition"] = [repetition_fraction(row.token_ids, repetition_ngram) for row in rows]
    for name in sorted(need.removeprefix(PART_PREFIX) for need in needs if need.startswith(PART_PREFIX)):
        if name not in parts and name in PARTS:
            parts[name] = [PARTS[name](row, think_end) for row in rows]
        if name not in parts:
            raise ValueError(
                f"the method needs the row value parts[{name!r}], which this verifier does not give (it gives "
                f"{sorted(parts) or 'none'}): use a verifier whose Verdict.parts has it"
            )
    return parts


PARTS: dict[str, Callable[[LocalRollout, str], float]] = {
    "format": lambda row, end: float(has_format(row.completion, end)),
    "repeated": lambda row, _: float(repetition_fraction(row.token_ids, 40) > 0),
    "reflections": lambda row, _: float(count_reflections(row.completion)),
    "label": lambda row, end: difficulty_label(row.completion, end),
    "nrp": lambda row, _: necessary_share(row.completion, row.reference),
    "think_characters": lambda row, end: float(len(thought_of(row.completion, end))),
    "turns": lambda row, _: float(row.costs.get("turns", 1.0)),
}
"""Row values that a completion tells by itself, given the tag that ends its thought, by the name that components use.

A verifier that gives a part of the same name comes first.
"""


def _by_name(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = sorted({name for row in rows for name in row})
    return {name: [float(row.get(name, 0.0)) for row in rows] for name in names}


def _columns(heads: Sequence[LocalRollout], needs: Collection[str]) -> dict[str, list[Any]]:
    wanted = sorted(name.removeprefix(COLUMN_PREFIX) for name in needs if name.startswith(COLUMN_PREFIX))
    for name in wanted:
        for head in heads:
            if name not in head.columns:
                raise ValueError(
                    f"the method needs the data set's column {name!r}; prompt {head.prompt_key} has only "
                    f"{sorted(head.columns)}: add it with data.columns=[{name}]"
                )
    return {name: [head.columns[name] for head in heads] for name in wanted}


def _signals(rows: Sequence[LocalRollout], vocabulary: TokenVocabulary, needs: Collection[str]) -> dict[str, Tensor]:
    """Entropy means and per-token fields, those that `needs` names. Tokens that nobody sampled are in none of them."""
    signals: dict[str, Tensor] = {}
    if "mean_entropy" in needs:
        signals["mean_entropy"] = torch.tensor([_mean(row, 0, None) for row in rows], dtype=torch.float64)
    if PHASE_FIELDS & set(needs):
        ends = [think_end_position(row.token_ids, vocabulary.think_end_id) for row in rows]
        think = [_mean(row, 0, end) for row, end in zip(rows, ends, strict=True)]
        answer = [_mean(row, end + 1, None) for row, end in zip(rows, ends, strict=True)]
        signals["think_entropy"] = torch.tensor(think, dtype=torch.float64)
        signals["answer_entropy"] = torch.tensor(answer, dtype=torch.float64)
    for name in ("entropies", "logprobs"):
        if name in needs:
            ragged = [torch.from_numpy(_sampled_only(row, getattr(row, name))) for row in rows]
            signals[name] = torch.nn.utils.rnn.pad_sequence(ragged, batch_first=True)
    return signals


def _mean(row: LocalRollout, start: int, end: int | None) -> float:
    """Mean entropy of the sampled tokens from `start` to `end`, in float64; an empty phase is 0."""
    assert row.entropies is not None, "the trainer runs the forward pass when a component needs entropies"
    values = row.entropies[start:end]
    if row.sampled is not None:
        values = values[np.asarray(row.sampled[start:end], dtype=bool)]
    return float(np.mean(values, dtype=np.float64)) if len(values) else 0.0


def _sampled_only(row: LocalRollout, values: np.ndarray | None) -> np.ndarray:
    found = np.asarray(values, dtype=np.float32)
    return found if row.sampled is None else np.where(np.asarray(row.sampled, dtype=bool), found, np.float32(0))
