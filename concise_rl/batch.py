"""The carrier of one training step: every rank holds the same `RolloutBatch`, whole groups in prompt-major order.

Axes, everywhere in this package:

    P  prompts in the step            G  completions sampled for each prompt (the group)
    N  rows, N = P * G, n = p * G + g     T  sampled tokens of the longest completion

Units: lengths are sampled tokens including EOS; entropies and log-probs are nats at the sampling temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

OPTIONAL_FIELDS = ("think_entropy", "answer_entropy", "mean_entropy", "entropies", "logprobs")
"""Fields that cost a forward pass: filled only when a component names them in `needs`."""

PHASE_FIELDS = frozenset({"think_entropy", "answer_entropy"})
"""The optional fields that need a think tag which the tokenizer knows."""

COLUMN_PREFIX = "columns."
"""A component asks for a dataset column by naming `columns.<name>` in `needs`."""

_ROW_DTYPES = {
    "lengths": torch.int64,
    "truncated": torch.bool,
    "correct": torch.bool,
    "scorable": torch.bool,
    "task_reward": torch.float64,
    "think_lengths": torch.int64,
}


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """One step's rollouts, judged: P prompts x G completions, identical on every rank.

    Attributes:
        prompt_ids: (P,) stable content keys, never row numbers; the same prompt may stand twice.
        group_size: G.
        step: optimizer steps taken before this batch.
        lengths: (N,) int64, sampled tokens including EOS.
        truncated: (N,) bool, reached the token limit without EOS.
        correct: (N,) bool, the verdict.
        scorable: (N,) bool; False where no verdict could be had: such a row is out of every baseline, advantage 0.
        task_reward: (N,) float64, reward before shaping.
        think_lengths: (N,) int64, tokens before the first `</think>`; all of them where there is none.
        parts: reward parts of a hierarchical verdict, each (N,) float64; empty where the verifier has none.
        think_entropy, answer_entropy: (N,) float64 phase means in nats; the tag is in neither, an empty phase is 0.
        mean_entropy: (N,) float64, mean over all sampled tokens, nats.
        entropies, logprobs: (N, T) float32 per token, padded with 0.
        columns: dataset columns that a component asked for, each a sequence of P values.

    Raises:
        ValueError: a field has the wrong length, type or a non-finite value; the message names field, value, remedy.

    Example::

        batch = RolloutBatch.of(prompt_ids=("a",), group_size=2, lengths=[12, 30], correct=[True, True])
        batch.by_group(batch.lengths).amin(dim=1)        # tensor([12])
    """

    prompt_ids: tuple[str, ...]
    group_size: int
    step: int
    lengths: Tensor
    truncated: Tensor
    correct: Tensor
    scorable: Tensor
    task_reward: Tensor
    think_lengths: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    think_entropy: Tensor | None = None
    answer_entropy: Tensor | None = None
    mean_entropy: Tensor | None = None
    entropies: Tensor | None = None
    logprobs: Tensor | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ValueError(f"RolloutBatch.group_size={self.group_size}: a group has at least one completion")
        if self.step < 0:
            raise ValueError(f"RolloutBatch.step={self.step}: optimizer steps are counted from 0")
        for name, dtype in _ROW_DTYPES.items():
            self._check_rows(name, getattr(self, name), dtype)
        for name, part in self.parts.items():
            self._check_rows(f"parts[{name!r}]", part, torch.float64)
        for name in ("think_entropy", "answer_entropy", "mean_entropy"):
            if getattr(self, name) is not None:
                self._check_rows(name, getattr(self, name), torch.float64)
        for name in ("entropies", "logprobs"):
            self._check_tokens(name, getattr(self, name))
        for name, values in self.columns.items():
            if len(values) != self.n_prompts:
                raise ValueError(
                    f"RolloutBatch.columns[{name!r}] has {len(values)} values for {self.n_prompts} prompts; "
                    "give one value a prompt, not one a completion"
                )
        if bool((self.lengths < 0).any()) or bool((self.think_lengths > self.lengths).any()):
            raise ValueError("RolloutBatch.lengths: need 0 <= think_lengths <= lengths, counted in sampled tokens")

    def _check_rows(self, name: str, value: Tensor, dtype: torch.dtype) -> None:
        if value.ndim != 1 or value.shape[0] != self.n_rows:
            raise ValueError(
                f"RolloutBatch.{name} has shape {tuple(value.shape)}; {self.n_prompts} prompts x group_size "
                f"{self.group_size} make {self.n_rows} rows: gather whole groups before building the batch"
            )
        if value.dtype != dtype:
            raise ValueError(f"RolloutBatch.{name} is {value.dtype}; it must be {dtype}: convert with .to({dtype})")
        if dtype.is_floating_point:
            self._check_finite(name, value)

    def _check_tokens(self, name: str, value: Tensor | None) -> None:
        if value is None:
            return
        if value.ndim != 2 or value.shape[0] != self.n_rows or value.dtype != torch.float32:
            raise ValueError(
                f"RolloutBatch.{name} is {value.dtype} of shape {tuple(value.shape)}; "
                f"it must be float32 of shape ({self.n_rows}, T)"
            )
        self._check_finite(name, value)

    def _check_finite(self, name: str, value: Tensor) -> None:
        bad = ~torch.isfinite(value)
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            raise ValueError(
                f"RolloutBatch.{name}[{row}]={value[row].tolist()} (prompt {self.prompt_ids[row // self.group_size]}): "
                "rewards and entropies must be finite; mark a row without a verdict as scorable=False instead"
            )

    @classmethod
    def of(
        cls, *, prompt_ids: Sequence[str], group_size: int, lengths: Any, correct: Any, **others: Any
    ) -> RolloutBatch:
        """Build a batch from plain lists, deriving what is not given (no truncation, all scorable, reward 0/1)."""
        row_of = {n: torch.as_tensor(others.pop(n), dtype=dtype) for n, dtype in _ROW_DTYPES.items() if n in others}
        lengths = torch.as_tensor(lengths, dtype=torch.int64)
        correct = torch.as_tensor(correct, dtype=torch.bool)
        rows: dict[str, Any] = {
            "lengths": lengths,
            "correct": correct,
            "truncated": torch.zeros_like(correct),
            "scorable": torch.ones_like(correct),
            "task_reward": correct.to(torch.float64),
            "think_lengths": lengths.clone(),
        } | row_of
        for name in OPTIONAL_FIELDS:
            if others.get(name) is not None:
                dtype = torch.float32 if name in ("entropies", "logprobs") else torch.float64
                others[name] = torch.as_tensor(others[name], dtype=dtype)
        parts = {name: torch.as_tensor(part, dtype=torch.float64) for name, part in others.pop("parts", {}).items()}
        return cls(
            prompt_ids=tuple(prompt_ids),
            group_size=group_size,
            step=others.pop("step", 0),
            parts=parts,
            **rows,
            **others,
        )

    @property
    def n_prompts(self) -> int:
        """P."""
        return len(self.prompt_ids)

    @property
    def n_rows(self) -> int:
        """N = P * G."""
        return self.n_prompts * self.group_size

    def by_group(self, rows_N: Tensor) -> Tensor:
        """View (N, ...) as (P, G, ...)."""
        return rows_N.reshape(self.n_prompts, self.group_size, *rows_N.shape[1:])

    def without_variance(self, values_N: Tensor) -> Tensor:
        """The groups whose scorable rows all have one value, (P,) bool; so have those with fewer than two such rows."""
        values_PG, scorable_PG = self.by_group(values_N), self.by_group(self.scorable)
        lowest_P = torch.where(scorable_PG, values_PG, torch.inf).amin(dim=1)
        highest_P = torch.where(scorable_PG, values_PG, -torch.inf).amax(dim=1)
        return lowest_P >= highest_P

    def per_row(self, values_P: Tensor) -> Tensor:
        """Repeat one value a prompt, (P, ...), for each of its completions, (N, ...)."""
        return values_P.repeat_interleave(self.group_size, dim=0)

    def column(self, name: str) -> Sequence[Any]:
        """The dataset column `name`, one value a prompt.

        Raises:
            ValueError: no such column in this batch.
        """
        if name not in self.columns:
            raise ValueError(
                f"RolloutBatch.columns has no {name!r} (it has {sorted(self.columns)}); "
                f"name '{COLUMN_PREFIX}{name}' in the component's needs and give the dataset that column"
            )
        return self.columns[name]

    def replace(self, **changes: Any) -> RolloutBatch:
        """A checked copy with some fields changed."""
        return replace(self, **changes)

    def take_prompts(self, order: Sequence[int]) -> RolloutBatch:
        """The batch with its prompts in another order (or a part of them), groups kept whole."""
        rows = torch.tensor([p * self.group_size + g for p in order for g in range(self.group_size)], dtype=torch.long)
        changes: dict[str, Any] = {
            f.name: getattr(self, f.name)[rows] for f in fields(self) if isinstance(getattr(self, f.name), Tensor)
        }
        return self.replace(
            prompt_ids=tuple(self.prompt_ids[p] for p in order),
            parts={k: v[rows] for k, v in self.parts.items()},
            columns={k: [v[p] for p in order] for k, v in self.columns.items()},
            **changes,
        )
