"""Records of cells to rows of a leaderboard, and rows to a Markdown table, a CSV and pictures."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import processor
from benchmarks.stored import Record
from concise_rl.evaluation import Evaluation, EvaluationRow, difference
from concise_rl.evaluation.measures import curve_summary
from concise_rl.evaluation.tradeoff import against_frontier, known_frontier, slices
from concise_rl.reporting.plots import BLUE, GREY, ORANGE
from concise_rl.reporting.summary import markdown_table
from concise_rl.reporting.tradeoff import behaviour_table, regret_table, slice_table
from concise_rl.testbeds.frontier import PRICES

BUDGETS = (8, 16, 32, 64, 128)
"""Tokens at which a completion is cut for the area under the budget curve."""

FINDINGS = "<!-- findings -->"
"""What a page says between this and its next heading is written by hand, and kept when the page is made again."""

BEFORE = "*before training*"

Row = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """The model before training, which many rows share: its judged completions, and its numbers in a row."""

    evaluation: Evaluation
    numbers: Row


def start_of(before: Sequence[Record]) -> Start:
    """The model before training, by a record for each seed."""
    start = Evaluation.pooled([Evaluation(record.rows()) for record in before])
    area = {"budget_area": within_budgets(start.rows)["budget_area"]}
    return Start(start, start.summary() | bed_numbers(start.rows, before) | area)


def row_of(records: Sequence[Record], start: Start) -> Row:
    """Records that differ in their seed alone, as one row.

    Means, and 95 % intervals of a bootstrap over problems, the seeds being samples of each problem.

    Args:
        records: of one method and setting.
        start: the model before training, of the same seeds.

    On a bed whose best is known there are also `against` (`against_frontier`), `slices`, `behaviour` (mean over seeds)
    and `frontier`, its corners as pairs of tokens and accuracy.
    """
    end = Evaluation.pooled([Evaluation(record.rows()) for record in records])
    found, change, area = end.summary(), difference(start.evaluation, end), within_budgets(end.rows)
    cell = records[0].cell
    row: Row = {"method": cell.method, "setting": cell.setting, "seeds": len(records)}
    for source, names in (
        (found, ("accuracy", "mean_tokens", "oracle_ratio")),
        (change, ("accuracy_points", "tokens_percent", "aes")),
        (area, ("budget_area",)),
    ):
        for name in names:
            row |= {name: source[name], f"{name}_interval": source.get(f"{name}_interval")}
    return (
        row
        | bed_numbers(end.rows, records)
        | {
            "steps": sorted({record.steps for record in records}),
            "training_seconds": statistics.median(record.seconds for record in records),
            "sampled_tokens": statistics.fmean(record.sampled_tokens for record in records),
            "taught": statistics.fmean(record.taught for record in records),
            "covariance": covariance(records),
            "accuracy_seeds": [record.right.count("1") / len(record.right) for record in records],
            "mean_tokens_seeds": [statistics.fmean(record.tokens) for record in records],
            "commits": sorted({record.commit for record in records}),
            "dates": sorted({record.date for record in records}),
            "before": start.numbers,
        }
    )


def covariance(records: Sequence[Record]) -> list[float]:
    """Of mean accuracy and mean tokens over problems, seeds averaged: variance, covariance, variance of the means.

    With them the standard error of accuracy - price * tokens is known at any price.
    """
    right_SP = np.array([[character == "1" for character in record.right] for record in records], dtype=float)
    tokens_SP = np.array([record.tokens for record in records], dtype=float)
    found = np.cov(right_SP.mean(0), tokens_SP.mean(0)) / right_SP.shape[1]
    return [float(found[0, 0]), float(found[0, 1]), float(found[1, 1])]


def bed_numbers(rows: Sequence[EvaluationRow], records: Sequence[Record]) -> Row:
    """Rows against their bed's frontier; empty where there is none."""
    frontier = known_frontier(rows)
    if frontier is None:
        return {}
    return {
        "against": against_frontier(rows, frontier),
        "slices": slices(rows),
        "behaviour": mean_of([record.behaviour for record in records]),
        "frontier": [[point.tokens, point.accuracy] for point in frontier.mixtures],
    }


def mean_of(found: Sequence[Any]) -> Any:
    """Dicts of numbers as one of their means, key by key; what is None in one is left out of the mean."""
    if any(isinstance(own, Mapping) for own in found):
        keys = dict.fromkeys(key for own in found for key in own or ())
        return {key: mean_of([own[key] for own in found if own and key in own]) for key in keys}
    numbers = [own for own in found if own is not None]
    return statistics.fmean(numbers) if numbers else None


def ranked(rows: Sequence[Row]) -> list[Row]:
    """By regret at the middle price where the best is known, else the shortest first."""
    middle = f"{sorted(PRICES)[len(PRICES) // 2]:g}"
    return sorted(
        rows, key=lambda row: row["against"]["regret"][middle]["regret"] if "against" in row else row["mean_tokens"]
    )


def stored_frontier(rows: Sequence[Row]) -> Sequence[Sequence[float]] | None:
    """Tokens and accuracy of the frontier's corners, where it is known."""
    return rows[0].get("frontier")


def within_budgets(rows: Sequence[EvaluationRow], budgets: Sequence[int] = BUDGETS) -> dict[str, Any]:
    """The budget curve of stored completions: at b tokens one counts if it is right and ended within b."""

    def cut(row: EvaluationRow, budget: int) -> EvaluationRow:
        verdict = dataclasses.replace(row.verdict, correct=row.verdict.correct and row.length <= budget)
        length = min(row.length, budget)
        think = None if row.think_length is None else min(row.think_length, length)
        return dataclasses.replace(row, verdict=verdict, length=length, think_length=think, token_ids=None)

    return curve_summary(budgets, [[cut(row, budget) for row in rows] for budget in budgets])


def table(rows: Sequence[Row]) -> list[str]:
    """A Markdown table, a line a row; those of a sweep name their setting."""
    swept = any(row["setting"] for row in rows)
    heads = ["method", *(["setting"] if swept else []), "seeds", "accuracy, %", "±", "mean tokens", "±", "x oracle"]
    heads += ["AES", "budget area, %", "accuracy, points", "tokens, %", "s"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + ("---|" if swept else "") + "--:|" * (len(heads) - 1 - swept)]
    for r in rows:
        cells = [
            f"[{r['method']}](../methods/{r['method']}.md)",
            *([r["setting"] or "as its recipe"] if swept else []),
            str(r["seeds"]),
            with_interval(r, "accuracy", ".1f", 100),
            f"{50 * (max(r['accuracy_seeds']) - min(r['accuracy_seeds'])):.1f}" if r["seeds"] > 1 else "",
            with_interval(r, "mean_tokens", ".1f"),
            f"{(max(r['mean_tokens_seeds']) - min(r['mean_tokens_seeds'])) / 2:.1f}" if r["seeds"] > 1 else "",
            with_interval(r, "oracle_ratio", ".2f"),
            with_interval(r, "aes", "+.2f"),
            with_interval(r, "budget_area", ".1f", 100),
            with_interval(r, "accuracy_points", "+.1f"),
            with_interval(r, "tokens_percent", "+.0f"),
            f"{r['training_seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def bed_tables(rows: Sequence[Row]) -> list[str]:
    """Regret and distances, levels and slices, composition and skill; the reasoner before training last."""
    entries = {" ".join(filter(None, (row["method"], row["setting"]))): row for row in rows}
    entries[BEFORE] = rows[0]["before"]
    tables = regret_table(entries, unranked=(BEFORE,)), slice_table(entries), behaviour_table(entries)
    return [line for own in tables if own for line in (*markdown_table(own).splitlines(), "")]


def with_interval(row: Mapping[str, Any], name: str, form: str, factor: float = 1.0) -> str:
    """`value [low, high]`; empty where it is not defined."""
    if row[name] is None:
        return ""
    value, low, high = (format(factor * v, form) for v in (row[name], *row[f"{name}_interval"]))
    return f"{value} [{low}, {high}]"


def facts(rows: Sequence[Row]) -> str:
    """When, where and by what the rows were made."""
    commits, dates, steps = (
        sorted({item for row in rows for item in row[name]}) for name in ("commits", "dates", "steps")
    )
    return (
        f"Trained on {', '.join(dates)}, commit {', '.join(commits)}, {processor()}, {os.cpu_count()} cores, one "
        f"OpenMP thread a run; {', '.join(map(str, steps))} steps of 16 prompts x 8 completions."
    )


def start(rows: Sequence[Row]) -> str:
    """The model before training, in a sentence."""
    before = rows[0]["before"]
    return (
        f"Before training: {before['accuracy']:.1%} right at {before['mean_tokens']:.1f} tokens, budget area "
        f"{before['budget_area']:.1%}; the shortest reasoning takes "
        f"{before['mean_tokens'] / before['oracle_ratio']:.1f}. {before['problems']} problems, temperature 1."
    )


def findings(page: Path) -> str:
    """The part of a page that is written by hand, with its marker; the marker alone where there is no page."""
    written = page.read_text().partition(FINDINGS)[2].partition("\n## ")[0].strip() if page.exists() else ""
    return f"{FINDINGS}\n{written}\n" if written else f"{FINDINGS}\n"


def write(rows: Sequence[Row], stem: Path) -> None:
    """The rows as `stem.json` and `stem.csv`, without the model before training, which is alike in all."""
    kept = [{key: value for key, value in row.items() if key != "before"} for row in rows]
    stem.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)


def plot_settings(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG: a panel a method, its settings as points of accuracy against tokens with 95 % intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(row["method"] for row in rows))
    across = min(4, len(methods))
    down = -(-len(methods) // across)
    figure = Figure(figsize=(3.2 * across, 2.8 * down), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, method in zip(panels, methods, strict=False):
        own = [row for row in rows if row["method"] == method]
        panel.plot([r["mean_tokens"] for r in own], [100 * r["accuracy"] for r in own], color=GREY, linewidth=0.8)
        for place, r in enumerate(sorted(own, key=lambda row: -row["accuracy"])):
            x, y = r["mean_tokens"], 100 * r["accuracy"]
            (left, right), (low, high) = r["mean_tokens_interval"], (100 * v for v in r["accuracy_interval"])
            color = BLUE if r["setting"] else ORANGE
            panel.errorbar(
                *(x, y, [[y - low], [high - y]], [[x - left], [right - x]]), fmt="o", color=color, ecolor=(color, 0.35)
            )
            panel.annotate(r["value"], (x, y), textcoords="offset points", xytext=(6, 8 - 11 * place), fontsize=8)
        panel.set_title(f"{method}: {own[0]['coefficient']}", fontsize=9)
        panel.grid(alpha=0.3)
    for panel in panels[len(methods) :]:
        panel.set_axis_off()
    figure.supxlabel("mean tokens of a completion (fewer is better); orange: as the recipe has it", fontsize=9)
    figure.supylabel("accuracy, %", fontsize=9)
    figure.savefig(path, format="png")
