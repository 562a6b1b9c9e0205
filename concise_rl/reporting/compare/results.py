"""What the comparison found: each entry's numbers on each benchmark, its change against the baseline, and the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from concise_rl.errors import UserError
from concise_rl.evaluation import Evaluation, difference
from concise_rl.reporting.compare.load import Entry
from concise_rl.reporting.summary import Summary


@dataclass(frozen=True)
class Result:
    """One entry on one benchmark.

    Attributes:
        run: the entry's number.
        entry: the entry's name.
        benchmark: what it was evaluated on.
        evaluation: the judged completions.
        summary: see `concise_rl.evaluation.summarize`; of several runs also how many, and half their range
            (`runs`, `accuracy_spread`, `mean_tokens_spread`).
        difference: to the baseline, paired by problem; None for the baseline, and where that has no such benchmark.
        budget_curve: what a budget sweep of it found, if there was one.
        effort_curve: what a sweep over levels of effort found, if there was one.
        on_front: no other entry is at least as right with at most as many tokens, and better in one of the two.
    """

    run: int
    entry: str
    benchmark: str
    evaluation: Evaluation
    summary: Summary
    difference: Summary | None
    on_front: bool
    budget_curve: Summary | None
    effort_curve: Summary | None = None


def results(entries: Sequence[Entry], baseline: Entry) -> dict[str, list[Result]]:
    """Benchmark to the results of the entries that have it, in their order.

    Raises:
        UserError: an entry that has no benchmark in common with the baseline.
    """
    for entry in entries:
        if entry.evaluations and baseline.evaluations and not entry.evaluations.keys() & baseline.evaluations.keys():
            raise UserError(
                f"{entry.name} and {baseline.name} were evaluated on different problems, "
                f"{', '.join(entry.evaluations)} and {', '.join(baseline.evaluations)}: evaluate both on one "
                "benchmark, or compare them apart"
            )
    found: dict[str, list[Result]] = {}
    benchmarks = dict.fromkeys(benchmark for entry in entries for benchmark in entry.evaluations)
    for benchmark in benchmarks:
        having = [(run, entry) for run, entry in enumerate(entries) if benchmark in entry.evaluations]
        summaries = [entry.evaluations[benchmark].summary() | _spread(entry, benchmark) for _, entry in having]
        base = baseline.evaluations.get(benchmark)
        found[benchmark] = [
            Result(
                run,
                entry.name,
                benchmark,
                entry.evaluations[benchmark],
                summary,
                difference(base, entry.evaluations[benchmark]) if base and entry is not baseline else None,
                not any(_dominates(other, summary) for other in summaries),
                entry.budget_curves.get(benchmark),
                entry.effort_curves.get(benchmark),
            )
            for (run, entry), summary in zip(having, summaries, strict=True)
        ]
    return found


def _spread(entry: Entry, benchmark: str) -> dict[str, float]:
    """How far the runs of a pooled entry lie apart: half the range."""
    rows = [run.evaluations[benchmark].rows for run in entry.pooled]
    if len(rows) < 2:
        return {}
    accuracies = [sum(row.correct for row in own) / len(own) for own in rows]
    lengths = [sum(row.length for row in own) / len(own) for own in rows]
    return {
        "runs": len(rows),
        "accuracy_spread": (max(accuracies) - min(accuracies)) / 2,
        "mean_tokens_spread": (max(lengths) - min(lengths)) / 2,
    }


def choose_baseline(entries: Sequence[Entry], name: str | None) -> Entry:
    """The entry of that name; without one the first that was evaluated, which is the model before training if there is.

    Raises:
        UserError: no such entry, or one without an evaluation.
    """
    evaluated = [entry for entry in entries if entry.evaluations]
    if name is None:
        return (evaluated or list(entries))[0]
    for entry in evaluated:
        if entry.name == name:
            return entry
    names = ", ".join(entry.name for entry in evaluated)
    raise UserError(f"--baseline {name!r}: no evaluation goes by that name; choose from {names}")


def _dominates(one: dict[str, Any], other: dict[str, Any]) -> bool:
    gains = one["accuracy"] - other["accuracy"], other["mean_tokens"] - one["mean_tokens"]
    return min(gains) >= 0 and max(gains) > 0
