"""From completions, in whatever order they come, to judged and stored rows in the order of the problems."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concise_rl.errors import UserError
from concise_rl.evaluation.backends.base import Request
from concise_rl.evaluation.modes import Outcome
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.evaluation.store import Store
from concise_rl.methods.repetition import repetition_fraction
from concise_rl.verifiers import Verifier, verify_many

REPETITION_NGRAM = 10
"""Tokens of the n-gram whose second occurrence counts as repetition."""

JUDGE_ROWS = 64
JUDGE_SECONDS = 2.0
"""Completions are judged and stored once so many wait, or the last time is so long ago."""

Progress = Callable[[int, int], None]
"""Called with the completions that are judged so far, and how many there will be."""


@dataclass(frozen=True)
class Job:
    """One completion that an evaluation asks for, and what it is judged by; `stored` are further fields of its row."""

    prompt_id: str
    sample: int
    reference: str
    columns: Mapping[str, Any]
    request: Request
    stored: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt_id, self.sample


class Judging:
    """Judges completions as they come, a few at a time, and hands them on to be kept.

    Args:
        jobs: what is asked for.
        verifier: see `concise_rl.verifiers.verify_many`, also for `deadline_seconds`.
        settings: `think_end`; with a true `keep_token_ids` the rows keep the sampled ids.
        keep: takes each row once.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        verifier: Verifier,
        settings: Mapping[str, Any],
        keep: Callable[[Sequence[EvaluationRow]], None],
        *,
        deadline_seconds: float,
    ) -> None:
        self._missing = jobs
        self.verifier, self.settings = verifier, dict(settings)
        self.deadline_seconds = deadline_seconds
        self._keep = keep
        self._waiting: list[tuple[Job, Outcome]] = []
        self._last = time.monotonic()

    @contextmanager
    def missing(self) -> Iterator[Sequence[Job]]:
        """The jobs without a row; on the way out, whatever ends it, what has come is judged and kept."""
        try:
            yield self._missing
        finally:
            self._flush()

    def take(self, place: int, outcome: Outcome) -> None:
        """What was sampled for the job at this place among the missing ones."""
        self._waiting.append((self._missing[place], outcome))
        if len(self._waiting) >= JUDGE_ROWS or time.monotonic() - self._last >= JUDGE_SECONDS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        pairs = [(outcome.completion.text, job.reference) for job, outcome in self._waiting]
        tag = self.settings.get("think_end", "</think>")
        verdicts = verify_many(self.verifier, pairs, deadline_seconds=self.deadline_seconds, think_end=tag)
        self._keep(
            [self._row(job, outcome, verdict) for (job, outcome), verdict in zip(self._waiting, verdicts, strict=True)]
        )
        self._waiting = []
        self._last = time.monotonic()

    def _row(self, job: Job, outcome: Outcome, verdict: Any) -> EvaluationRow:
        completion, messages = outcome.completion, job.request.messages
        question = messages[-1]["content"] if messages else job.request.prompt
        return EvaluationRow(
            prompt_id=job.prompt_id,
            sample=job.sample,
            prompt=job.request.prompt,
            reference=job.reference,
            completion=completion.text,
            length=completion.length,
            think_length=completion.think_length,
            truncated=completion.truncated,
            verdict=verdict,
            columns=dict(job.columns),
            seed=job.request.seed,
            forced=outcome.forced,
            repetition=repetition(completion.tokens),
            token_ids=completion.token_ids if self.settings.get("keep_token_ids") else None,
            question="" if question == job.request.prompt else question,
            **job.stored,
        )


class Judge(Judging):
    """The judging of one evaluation, which holds all its rows and may have stored some before.

    Args:
        jobs: all that the evaluation asks for, in the order of its rows.
        settings: see `Store` too.
        store: JSONL file that outlives an interruption; nothing is stored when None.
        on_progress: see `Progress`.

    Raises:
        UserError, DataError: see `Store`; or it holds completions that the jobs do not ask for.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        verifier: Verifier,
        settings: dict[str, Any],
        *,
        store: str | Path | None = None,
        deadline_seconds: float,
        on_progress: Progress | None = None,
    ) -> None:
        self.jobs = jobs
        self._on_progress = on_progress or (lambda done, total: None)
        self._store = None if store is None else Store(store, settings)
        self._rows = {} if self._store is None else {row.key: row for row in self._store.rows()}
        self._check_stored()
        missing = [job for job in jobs if job.key not in self._rows]
        super().__init__(missing, verifier, settings, self._add, deadline_seconds=deadline_seconds)

    @contextmanager
    def missing(self) -> Iterator[Sequence[Job]]:
        """See `Judging.missing`."""
        self._on_progress(len(self._rows), len(self.jobs))
        with super().missing() as jobs:
            yield jobs

    def rows(self) -> list[EvaluationRow]:
        """All rows in the order of the jobs, and so the store's."""
        rows = [self._rows[job.key] for job in self.jobs]
        if self._store is not None:
            self._store.finish(rows)
        return rows

    def _add(self, rows: Sequence[EvaluationRow]) -> None:
        if self._store is not None:
            self._store.append(rows)
        self._rows.update((row.key, row) for row in rows)
        self._on_progress(len(self._rows), len(self.jobs))

    def _check_stored(self) -> None:
        seeds = {job.key: job.request.seed for job in self.jobs}
        others = {key[0] for key in self._rows.keys() - seeds.keys()}
        if others:
            raise UserError(
                f"the store holds {len(others)} problems that are not asked for, such as {min(others)}: "
                "ask for the same problems, or for more, or choose another store"
            )
        for key, row in self._rows.items():
            if row.seed != seeds[key]:
                raise UserError(
                    f"problem {row.prompt_id} is rendered differently from the store (there: {row.prompt[:60]!r}): "
                    "use the same chat template, or choose another store"
                )


def repetition(tokens: Sequence[int] | Sequence[str] | None) -> float | None:
    """The share of tokens in repeated n-grams, n = `REPETITION_NGRAM`; texts stand for ids where those are unknown."""
    if tokens is None:
        return None
    number: dict[int | str, int] = {}
    return repetition_fraction([number.setdefault(token, len(number)) for token in tokens], REPETITION_NGRAM)
