"""Accuracy against budget, from the completions of one evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from concise_rl.errors import UserError
from concise_rl.evaluation.backends.base import Backend, Completion, Request, Sampling
from concise_rl.evaluation.evaluate import Evaluation
from concise_rl.evaluation.judge import Job, Judge, Progress
from concise_rl.evaluation.measures import curve_summary
from concise_rl.evaluation.modes import Mode, Outcome, check_budget, force, joining
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.verifiers import Verifier


@dataclass(frozen=True)
class BudgetCurve:
    """The same problems at several budgets.

    Attributes:
        mode: `truncated` or `forced`.
        budgets: in tokens, rising.
        evaluations: one a budget.
    """

    mode: str
    budgets: tuple[int, ...]
    evaluations: tuple[Evaluation, ...]

    def summary(self) -> dict[str, Any]:
        """See `concise_rl.evaluation.measures.curve_summary`."""
        rows = [evaluation.rows for evaluation in self.evaluations]
        return {"mode": self.mode} | curve_summary(self.budgets, rows)


def budget_sweep(
    evaluation: Evaluation,
    backend: Backend,
    verifier: Verifier,
    budgets: Sequence[int],
    *,
    mode: Literal["truncated", "forced"] = "truncated",
    answer_start: str = "",
    folder: str | Path | None = None,
    verify_deadline_seconds: float = 5.0,
    on_progress: Progress | None = None,
) -> BudgetCurve:
    """What the completions of one evaluation would have been under each budget.

    Truncation needs no model: the completion is cut and judged anew. Under force a completion that had stopped thinking
    within the budget stays as it is; of the others the thinking is cut and only the answer is sampled anew, in the
    tokens that `max_new_tokens` leaves. Either follows the same distribution as what `evaluate` gives in that mode at
    that budget; a curve from one set of completions costs less, and its points vary together, which makes its shape
    more certain than its height.

    Args:
        evaluation: of mode `as_trained`, made with `keep_token_ids`.
        backend: the model that made it.
        verifier: judges again what changed.
        budgets: in tokens, up to `max_new_tokens`.
        answer_start: see `Mode`.
        folder: where each budget's rows are stored, so that an interrupted sweep goes on.

    Raises:
        UserError: no budget, a budget below 1 or above `max_new_tokens`, or an evaluation in another mode or without
            token ids.
    """
    sampling = _check(evaluation, backend, budgets, mode)
    rows, ordered, points = evaluation.rows, tuple(sorted(set(budgets))), []
    for number, budget in enumerate(ordered):
        at_budget = Mode(mode, budget, answer_start=answer_start)
        judge = Judge(
            [job_of(row) for row in rows],
            verifier,
            evaluation.settings | {"mode": dataclasses.asdict(at_budget), "keep_token_ids": False, "swept": True},
            store=None if folder is None else Path(folder) / f"{mode}-{budget}.jsonl",
            deadline_seconds=verify_deadline_seconds,
            on_progress=_overall(on_progress, number, len(ordered)),
        )
        _at_budget(rows, backend, sampling, at_budget, judge)
        points.append(Evaluation(judge.rows(), judge.settings))
    return BudgetCurve(mode, ordered, tuple(points))


def _check(evaluation: Evaluation, backend: Backend, budgets: Sequence[int], mode: str) -> Sampling:
    """How the evaluation was sampled, when it can be swept with this back end."""
    if not budgets or min(budgets) < 1:
        raise UserError(f"budgets={list(budgets)}: give one or more numbers of tokens, each 1 or more")
    settings = evaluation.settings
    if settings.get("mode", {}).get("name") != "as_trained":
        raise UserError("a budget sweep starts from an evaluation in mode=as_trained: make one, with keep_token_ids")
    if any(row.token_ids is None for row in evaluation.rows):
        raise UserError(
            "a budget sweep needs the sampled ids: evaluate with keep_token_ids=True, on a model of one's own"
        )
    sampling = Sampling(**{field.name: settings[field.name] for field in dataclasses.fields(Sampling)})
    if max(budgets) > sampling.max_new_tokens:
        raise UserError(
            f"budgets={list(budgets)}: the completions end at max_new_tokens={sampling.max_new_tokens}, so nothing was "
            "measured above; lower the budgets, or evaluate with a higher limit"
        )
    for name, value in backend.identity().items() if mode == "forced" else ():
        if settings.get(name) != value:
            raise UserError(
                f"{name}={value!r}: the evaluation was made with {settings.get(name)!r}; sweep the same model"
            )
    return sampling


def _overall(on_progress: Progress | None, number: int, budgets: int) -> Progress | None:
    """Progress over all budgets, of the judge of one."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(number * total + done, budgets * total)


def job_of(row: EvaluationRow) -> Job:
    """The same completion, asked for again."""
    assert row.seed is not None
    return Job(row.prompt_id, row.sample, row.reference, row.columns, Request(row.prompt, (), row.seed))


def _at_budget(rows: Sequence[EvaluationRow], backend: Backend, sampling: Sampling, mode: Mode, judge: Judge) -> None:
    assert mode.budget is not None
    row_of = {row.key: row for row in rows}
    asked: list[tuple[int, Request]] = []
    with judge.missing() as jobs:
        for place, job in enumerate(jobs):
            row = row_of[job.key]
            start = cut(row, mode.budget, backend)
            thought = row.think_length is not None and row.think_length < min(row.length, mode.budget)
            if mode.name == "truncated" or row.length <= mode.budget or thought:
                whole = start if mode.name == "truncated" else cut(row, row.length, backend)
                judge.take(place, Outcome(whole, forced=False))
            else:
                asked.append((place, force(job.request, start, sampling, mode)))
        if asked:
            check_budget(mode, sampling)
            requests = [request for _, request in asked]
            rest = dataclasses.replace(sampling, max_new_tokens=sampling.max_new_tokens - mode.budget)
            take = joining(requests, sampling, lambda i, outcome: judge.take(asked[i][0], outcome))
            backend.generate(requests, rest, take)


def cut(row: EvaluationRow, budget: int, backend: Backend) -> Completion:
    """The first `budget` tokens of a completion; all of it where it is no longer."""
    ids = row.token_ids
    assert ids is not None
    if len(ids) <= budget:
        return Completion(row.completion, row.length, row.truncated, row.think_length, ids)
    assert row.think_length is not None
    return Completion(backend.decode(ids[:budget]), budget, True, min(row.think_length, budget), ids[:budget])
