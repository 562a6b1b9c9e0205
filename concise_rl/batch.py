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

COLUMN_PREFIX = "columns."
"""A component asks for a dataset column by naming `columns.<name>` in `needs`."""

PART_PREFIX = "parts."
"""A component asks for a row value that the verifier step gives by naming `parts.<name>` in `needs`."""


@dataclass(frozen=True)
class Field:
    """What the package knows of one tensor of a batch; trainer, planner, replay, run log and tests read `FIELDS`.

    Attributes:
        axes: `N` for one value a row, `NT` for one a token.
        dtype: of the tensor.
        optional: filled only where a component names it in `needs`: it costs a forward pass over what was sampled.
        phases: it needs a think tag that the tokenizer knows.
    """

    axes: str
    dtype: torch.dtype
    optional: bool = False
    phases: bool = False


FIELDS: dict[str, Field] = {
    "lengths": Field("N", torch.int64),
    "limits": Field("N", torch.int64),
    "truncated": Field("N", torch.bool),
    "correct": Field("N", torch.bool),
    "scorable": Field("N", torch.bool),
    "counts": Field("N", torch.bool),
    "task_reward": Field("N", torch.float64),
    "think_lengths": Field("N", torch.int64),
    "think_entropy": Field("N", torch.float64, optional=True, phases=True),
    "answer_entropy": Field("N", torch.float64, optional=True, phases=True),
    "mean_entropy": Field("N", torch.float64, optional=True),
    "entropies": Field("NT", torch.float32, optional=True),
    "logprobs": Field("NT", torch.float32, optional=True),
}
"""Every tensor field of `RolloutBatch`, in one table."""

OPTIONAL_FIELDS = tuple(name for name, known in FIELDS.items() if known.optional)
"""Fields that cost a forward pass: filled only when a component names them in `needs`."""

PHASE_FIELDS = frozenset(name for name, known in FIELDS.items() if known.phases)
"""The optional fields that need a think tag which the tokenizer knows."""

SAMPLED_TOKENS = "sampled_tokens"
"""The cost that every batch has: the tokens that the policy sampled."""


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """One step's rollouts, judged: P prompts x G completions, identical on every rank.

    Attributes:
        prompt_keys: (P,) stable content keys, never row numbers; the same prompt may stand twice.
        group_size: G.
        step: optimizer steps taken before this batch.
        lengths: (N,) int64, tokens that the policy sampled, EOS included; never what was forced or came from a tool.
        limits: (N,) int64, the most tokens that the row was allowed.
        truncated: (N,) bool, reached its limit without EOS.
        correct: (N,) bool, the verdict.
        scorable: (N,) bool; False where no verdict could be had.
        counts: (N,) bool, the row teaches: it is in baselines, histories, the loss and its denominators. A row that
            is not scorable never counts; filters leave out more. Credit is 0 where it is False.
        task_reward: (N,) float64, reward before shaping.
        think_lengths: (N,) int64, tokens before the first `</think>`; all of them where there is none.
        parts: row values from the verifier step, each (N,) float64: reward parts of a hierarchical verdict, and what
            was counted in the text.
        costs: what the row cost, each (N,) float64: always `sampled_tokens`; with turns also `context_tokens`, `turns`.
        think_entropy: (N,) float64, mean before the think-end tag in nats; an empty phase is 0.
        answer_entropy: (N,) float64, mean after that tag, which is in neither phase.
        mean_entropy: (N,) float64, mean over all sampled tokens, nats.
        entropies: (N, T) float32 per token in nats, padded with 0.
        logprobs: (N, T) float32 per token in nats, padded with 0.
        columns: dataset columns that a component asked for, and what an edit wrote, each a sequence of P values.

    Raises:
        ValueError: a field has the wrong length, type or a non-finite value; the message names field, value, remedy.

    Example:
        ```python
        batch = RolloutBatch.of(prompt_keys=("a",), group_size=2, lengths=[12, 30], correct=[True, True])
        batch.by_group(batch.lengths).amin(dim=1)  # tensor([12])
        ```
    """

    prompt_keys: tuple[str, ...]
    group_size: int
    step: int
    lengths: Tensor
    limits: Tensor
    truncated: Tensor
    correct: Tensor
    scorable: Tensor
    counts: Tensor
    task_reward: Tensor
    think_lengths: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    costs: Mapping[str, Tensor] = field(default_factory=dict)
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
        for name, known in FIELDS.items():
            self._check_field(name, known, getattr(self, name))
        for kind, rows in (("parts", self.parts), ("costs", self.costs)):
            for name, values in rows.items():
                self._check_rows(f"{kind}[{name!r}]", values, torch.float64)
        for name, column in self.columns.items():
            if len(column) != self.n_prompts:
                raise ValueError(
                    f"RolloutBatch.columns[{name!r}] has {len(column)} values for {self.n_prompts} prompts; "
                    "give one value a prompt, not one a completion"
                )
        if bool((self.lengths < 0).any()) or bool((self.think_lengths > self.lengths).any()):
            raise ValueError("RolloutBatch.lengths: need 0 <= think_lengths <= lengths, counted in sampled tokens")
        if bool((self.counts & ~self.scorable).any()):
            raise ValueError("RolloutBatch.counts: a row that is not scorable cannot teach; use counts & scorable")

    def _check_field(self, name: str, known: Field, value: Tensor | None) -> None:
        if value is None and known.optional:
            return
        if not isinstance(value, Tensor):
            raise ValueError(f"RolloutBatch.{name} is {type(value).__name__}; it must be a tensor of {known.dtype}")
        if known.axes == "N":
            self._check_rows(name, value, known.dtype)
        else:
            self._check_tokens(name, value)

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

    def _check_tokens(self, name: str, value: Tensor) -> None:
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
                f"RolloutBatch.{name}[{row}]={value[row].tolist()} (prompt {self.prompt_keys[row // self.group_size]}):"
                " rewards and entropies must be finite; mark a row without a verdict as scorable=False instead"
            )

    @classmethod
    def of(
        cls, *, prompt_keys: Sequence[str], group_size: int, lengths: Any, correct: Any, **others: Any
    ) -> RolloutBatch:
        """Build a batch from plain lists, deriving what is not given.

        Without them: no row is truncated, all are scorable, all scorable rows count, the reward is 0 or 1, all tokens
        are thought, every limit is the longest length, and the one cost is the sampled tokens.
        """

        def rows(name: str, default: Any) -> Tensor:
            given = others.pop(name, None)
            return torch.as_tensor(default if given is None else given, dtype=FIELDS[name].dtype)

        lengths = torch.as_tensor(lengths, dtype=torch.int64)
        correct = torch.as_tensor(correct, dtype=torch.bool)
        scorable = rows("scorable", torch.ones_like(correct))
        parts = {name: torch.as_tensor(part, dtype=torch.float64) for name, part in others.pop("parts", {}).items()}
        costs = {name: torch.as_tensor(cost, dtype=torch.float64) for name, cost in others.pop("costs", {}).items()}
        for name in OPTIONAL_FIELDS:
            if others.get(name) is not None:
                others[name] = torch.as_tensor(others[name], dtype=FIELDS[name].dtype)
        return cls(
            prompt_keys=tuple(prompt_keys),
            group_size=group_size,
            step=others.pop("step", 0),
            lengths=lengths,
            limits=rows("limits", torch.full_like(lengths, int(lengths.max()) if lengths.numel() else 0)),
            truncated=rows("truncated", torch.zeros_like(correct)),
            correct=correct,
            scorable=scorable,
            counts=rows("counts", scorable),
            task_reward=rows("task_reward", correct.to(torch.float64)),
            think_lengths=rows("think_lengths", lengths.clone()),
            parts=parts,
            costs={SAMPLED_TOKENS: lengths.to(torch.float64)} | costs,
            **others,
        )

    @property
    def n_prompts(self) -> int:
        """P."""
        return len(self.prompt_keys)

    @property
    def n_rows(self) -> int:
        """N = P * G."""
        return self.n_prompts * self.group_size

    def by_group(self, rows_N: Tensor) -> Tensor:
        """View (N, ...) as (P, G, ...)."""
        return rows_N.reshape(self.n_prompts, self.group_size, *rows_N.shape[1:])

    def without_variance(self, values_N: Tensor) -> Tensor:
        """The groups whose rows that count all have one value, (P,) bool; so have those with fewer than two of them."""
        values_PG, counts_PG = self.by_group(values_N), self.by_group(self.counts)
        lowest_P = torch.where(counts_PG, values_PG, torch.inf).amin(dim=1)
        highest_P = torch.where(counts_PG, values_PG, -torch.inf).amax(dim=1)
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

    def part(self, name: str) -> Tensor:
        """The row value `name`, (N,) float64.

        Raises:
            ValueError: the batch has none.
        """
        if name not in self.parts:
            raise ValueError(
                f"RolloutBatch.parts has no {name!r} (it has {sorted(self.parts)}); name '{PART_PREFIX}{name}' in the "
                "component's needs and use a verifier that gives it"
            )
        return self.parts[name]

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
            prompt_keys=tuple(self.prompt_keys[p] for p in order),
            parts={k: v[rows] for k, v in self.parts.items()},
            costs={k: v[rows] for k, v in self.costs.items()},
            columns={k: [v[p] for p in order] for k, v in self.columns.items()},
            **changes,
        )
