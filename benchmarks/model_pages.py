"""What the pages of real language models share: rows of cells, the course of their training, and some answers."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import ORIGIN, Cell, processor
from benchmarks.leaderboard import with_interval
from concise_rl.evaluation import Evaluation, difference
from concise_rl.reporting.run_log import read_metrics

Row = dict[str, Any]

LEARNING = (
    "Of the completions of a step: right, % / mean tokens / without credit, %, since their group is all right or wrong."
)


def name(method: str, setting: str, seed: int | None = None) -> str:
    """The method, what differs from its recipe, and the seed of one run."""
    return " ".join(filter(None, (method, setting, "" if seed is None else f"seed {seed}")))


def sides(cells: Sequence[Cell], runs: Path) -> tuple[Evaluation, Evaluation]:
    """The evaluations before and after training of cells that differ in their seed alone, pooled."""
    before, after = (
        Evaluation.pooled([Evaluation.load(cell.folder(runs) / f"evaluation-{side}.jsonl") for cell in cells])
        for side in ("before", "after")
    )
    return before, after


def method_row(cells: Sequence[Cell], runs: Path) -> Row:
    """Cells that differ in their seed alone, as one row: intervals are over problems, the seeds samples of each."""
    before, after = sides(cells, runs)
    found, change = after.summary(), difference(before, after)
    summaries = [json.loads((cell.folder(runs) / "summary.json").read_text()) for cell in cells]
    origins = [json.loads((cell.folder(runs) / ORIGIN).read_text()) for cell in cells]
    row: Row = {"method": cells[0].method, "setting": cells[0].setting, "seeds": len(cells), "before": before.summary()}
    for source, names in (
        (found, ("accuracy", "mean_tokens")),
        (change, ("accuracy_points", "tokens_percent", "aes")),
    ):
        for key in names:
            row |= {key: source[key], f"{key}_interval": source.get(f"{key}_interval")}
    return row | {
        "truncated_frac": found["truncated_frac"],
        "training_seconds": statistics.median(summary["training_seconds"] for summary in summaries),
        "commits": sorted({origin["commit"] for origin in origins}),
        "dates": sorted({origin["date"] for origin in origins}),
    }


def made(rows: Sequence[Row]) -> str:
    """When, at which commit and on which machine."""
    commits, dates = (", ".join(sorted({item for row in rows for item in row[name]})) for name in ("commits", "dates"))
    return f"{dates}, commit {commits}, {processor()}, {os.cpu_count()} cores, one OpenMP thread a run"


def table(rows: Sequence[Row]) -> list[str]:
    """Before training, and each method after it."""
    lines = ["| | seeds | accuracy, % | tokens | cut at the limit, % | accuracy, points | tokens, % | AES | s |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for shown, row, change in (
        ("before training", rows[0]["before"], False),
        *((name(r["method"], r["setting"]), r, True) for r in rows),
    ):
        cells = [shown, str(row["seeds"]) if change else "", with_interval(row, "accuracy", ".1f", 100)]
        cells += [with_interval(row, "mean_tokens", ".1f"), f"{100 * row['truncated_frac']:.1f}"]
        if change:
            cells += [with_interval(row, "accuracy_points", "+.1f"), with_interval(row, "tokens_percent", "+.0f")]
            cells += [with_interval(row, "aes", "+.2f"), f"{row['training_seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells + [''] * (9 - len(cells)))} |")
    return lines


def learning(cells: Sequence[Cell], runs: Path, every: int = 2) -> list[str]:
    """Step by step, a column a run: see LEARNING."""
    logs = [read_metrics(cell.folder(runs)) for cell in cells]
    lines = [
        f"| step | {' | '.join(name(c.method, c.setting, c.seed) for c in cells)} |",
        "|--:|" + "---|" * len(cells),
    ]
    for k in range(0, min(map(len, logs)), every):
        values = [
            f"{100 * log[k]['accuracy']:.0f} / {log[k]['mean_tokens']:.1f} / {100 * log[k]['zero_credit_frac']:.0f}"
            for log in logs
        ]
        lines.append(f"| {logs[0][k]['step']} | {' | '.join(values)} |")
    return lines


def examples(cells: Sequence[Cell], runs: Path, problems: int = 3) -> list[str]:
    """The first sample of some problems, before and after each run."""
    shown = [("before", Evaluation.load(cells[0].folder(runs) / "evaluation-before.jsonl"))]
    shown += [
        (name(c.method, c.setting, c.seed), Evaluation.load(c.folder(runs) / "evaluation-after.jsonl")) for c in cells
    ]
    asked = [row for row in shown[0][1].rows if row.sample == 0][:problems]
    lines = ["| problem | | answer | tokens | |", "|---|---|---|--:|---|"]
    for problem in asked:
        for side, evaluation in shown:
            row = next(row for row in evaluation.rows if row.key == problem.key)
            text = " ".join(row.completion.split()).replace("|", "\\|")
            question = problem.prompt.rpartition("user\n")[2].partition("<|im_end|>")[0]
            lines.append(f"| {question} | {side} | {text} | {row.length} | {'right' if row.correct else ''} |")
    return lines
