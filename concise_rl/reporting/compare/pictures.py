"""The comparison as charts: front, lengths, budget, difficulty, training."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from concise_rl.reporting.compare.charts import Boxes, Chart, Series
from concise_rl.reporting.compare.load import BEFORE, Entry
from concise_rl.reporting.compare.results import Result
from concise_rl.reporting.glossary import describe
from concise_rl.reporting.plots import smooth, smoothing_width

PERCENTILES = (5, 25, 50, 75, 95)
CURVE_POINTS = 200
"""A curve of more points is thinned to about so many: no screen shows more."""

BUDGETS = 80
NAMED_ENTRIES = 12
"""So many names fit beside their points."""

TRAINING_METRICS = (
    "mean_tokens", "accuracy", "reward", "entropy", "truncated_frac", "zero_variance_frac", "wiped_correct_frac",
)  # fmt: skip


class Look(NamedTuple):
    """How an entry is drawn: place in the palette, shared by the runs of a method, and that method's name."""

    style: int | None
    group: str


def looks(entries: Sequence[Entry]) -> list[Look]:
    """The look of each entry; what was before training is neutral."""
    methods = list(dict.fromkeys(entry.method for entry in entries if entry.method != BEFORE))
    return [Look(None if entry.method == BEFORE else methods.index(entry.method), entry.method) for entry in entries]


def result_charts(entries: Sequence[Entry], found: Mapping[str, Sequence[Result]]) -> dict[str, list[Chart]]:
    """Benchmark to its charts; the file names carry the benchmark where there are several."""
    seen_as = looks(entries)
    pictures = {}
    for benchmark, rows in found.items():
        suffix = f"-{_file_name(benchmark)}" if len(found) > 1 else ""
        on = f" on {benchmark}" if len(found) > 1 else ""
        pictures[benchmark] = [
            front_chart(rows, seen_as, suffix, on),
            budget_chart(rows, seen_as, suffix, on),
            *sweep_charts(rows, seen_as, suffix, on),
            *effort_charts(rows, seen_as, suffix, on),
            lengths_chart(rows, suffix, on),
            *difficulty_charts(rows, seen_as, suffix, on),
        ]
    return pictures


def front_chart(rows: Sequence[Result], seen_as: Sequence[Look], suffix: str = "", on: str = "") -> Chart:
    """Accuracy against mean tokens, with 95 % intervals, and the stairs of what nothing dominates."""
    front = sorted((r.summary["mean_tokens"], 100 * r.summary["accuracy"]) for r in rows if r.on_front)
    widest = max(_ends(r.summary, "mean_tokens")[1] for r in rows)
    stairs = [*front, (widest, front[-1][1])]
    series = [Series("Pareto front", *_columns(stairs), kind="step")]
    for row in rows:
        found = row.summary
        series.append(
            Series(row.entry, [found["mean_tokens"]], [100 * found["accuracy"]], seen_as[row.run].style, "points",
                   [_ends(found, "mean_tokens")], [_ends(found, "accuracy", 100)], row.run, seen_as[row.run].group)
        )  # fmt: skip
    return Chart(
        f"accuracy_tokens{suffix}",
        f"Accuracy against tokens{on}",
        "mean tokens a completion (fewer is better)",
        "accuracy, %",
        series,
        note="Bars are 95 % intervals, problems resampled. The stairs join what no other entry beats in both.",
        named_points=len(rows) <= NAMED_ENTRIES,
    )


def budget_chart(rows: Sequence[Result], seen_as: Sequence[Look], suffix: str = "", on: str = "") -> Chart:
    """Accuracy if sampling stopped at b tokens, no second chance: rows that are right and ended within b / rows."""
    lengths = [row.length for result in rows for row in result.evaluation.rows]
    budgets = np.unique(np.geomspace(max(1, min(lengths)), max(2, *lengths), BUDGETS).round())
    series = []
    for result in rows:
        ended = np.sort([row.length for row in result.evaluation.rows if row.correct])
        share = np.searchsorted(ended, budgets, side="right") / len(result.evaluation.rows)
        series.append(_line(result.entry, budgets.tolist(), (100 * share).tolist(), seen_as, result.run))
    return Chart(
        f"accuracy_budget{suffix}",
        f"Accuracy within a budget{on}",
        "token budget",
        "right within the budget, %",
        series,
        note="From the stored completions: one counts if it is right and ended within the budget, no second chance.",
        log_x=True,
    )


def sweep_charts(rows: Sequence[Result], seen_as: Sequence[Look], suffix: str = "", on: str = "") -> list[Chart]:
    """Accuracy against budget as it was measured: by sweeps, and by evaluations of one model at several budgets.

    Those are told by their settings, which differ in the budget and in nothing else.
    """
    curves: dict[str, list[tuple[str, int, list[Mapping[str, Any]]]]] = {}
    for row in rows:
        if row.budget_curve:
            points = row.budget_curve["points"]
            curves.setdefault(str(row.budget_curve["mode"]), []).append((row.entry, row.run, points))
    apart: dict[str, list[Result]] = {}
    for row in rows:
        mode = row.evaluation.settings.get("mode") or {}
        if mode.get("budget"):
            same = {**row.evaluation.settings, "mode": {**mode, "budget": None}}
            apart.setdefault(json.dumps(same, sort_keys=True), []).append(row)
    for group in apart.values():
        points = sorted(
            ({"budget": r.evaluation.settings["mode"]["budget"], **r.summary} for r in group), key=lambda p: p["budget"]
        )
        if len(points) > 1:
            mode = group[0].evaluation.settings["mode"]["name"]
            curves.setdefault(mode, []).append((group[0].entry, group[0].run, points))
    charts = []
    for mode, found in curves.items():
        series = [
            Series(name, [p["budget"] for p in points], [100 * p["accuracy"] for p in points], seen_as[run].style,
                   y_intervals=[_ends(p, "accuracy", 100) for p in points], run=run, group=seen_as[run].group)
            for name, run, points in found
        ]  # fmt: skip
        charts.append(
            Chart(f"budget_{_file_name(mode)}{suffix}", f"Accuracy at a budget, {mode}{on}", "token budget",
                  "accuracy, %", series, note="Measured at each budget; the band is the 95 % interval.", log_x=True)
        )  # fmt: skip
    return charts


def effort_charts(rows: Sequence[Result], seen_as: Sequence[Look], suffix: str = "", on: str = "") -> list[Chart]:
    """Accuracy and tokens at each level of effort, a line an entry; none where nobody was asked at levels."""
    series = []
    for row in rows:
        if not row.effort_curve:
            continue
        points, look = row.effort_curve["points"], seen_as[row.run]
        shared: dict[str, Any] = {"style": look.style, "run": row.run, "group": look.group}
        tokens, rates = [p["mean_tokens"] for p in points], [100 * p["accuracy"] for p in points]
        series.append(Series(row.entry, tokens, rates, **shared))
        series += [
            Series(f"{row.entry}, {point['level']}", [x], [y], kind="points", **shared,
                   x_intervals=[_ends(point, "mean_tokens", 1)], y_intervals=[_ends(point, "accuracy", 100)])
            for point, x, y in zip(points, tokens, rates, strict=True)
        ]  # fmt: skip
    note = "The same problems, asked for at each level in words; bars are 95 % intervals, problems resampled."
    title = f"Accuracy against effort{on}"
    chart = Chart(f"effort{suffix}", title, "mean tokens", "accuracy, %", series, note=note, named_points=True)
    return [chart] if series else []


def lengths_chart(rows: Sequence[Result], suffix: str = "", on: str = "") -> Chart:
    """Where the tokens go: percentiles of length given right, and given wrong."""
    boxes = []
    for name, right in (("right", True), ("wrong", False)):
        lengths = {r.entry: [row.length for row in r.evaluation.rows if row.correct == right] for r in rows}
        kept = {entry: values for entry, values in lengths.items() if values}
        shares = [np.percentile(values, PERCENTILES).tolist() for values in kept.values()]
        if kept:
            runs = [result.run for result in rows if result.entry in kept]
            boxes.append(Boxes(name, list(kept), shares, runs, filled=right))
    return Chart(
        f"lengths{suffix}",
        f"Length, given right and given wrong{on}",
        "tokens of a completion",
        "",
        boxes,
        note="Box: quartiles and median; whiskers: 5th and 95th percentile.",
    )


def difficulty_charts(rows: Sequence[Result], seen_as: Sequence[Look], suffix: str = "", on: str = "") -> list[Chart]:
    """Accuracy and tokens by difficulty, where the benchmark has numbered levels."""
    levels = [level for level in rows[0].summary["by_difficulty"] if _is_number(level)]
    if len(levels) < 2 or any(list(row.summary["by_difficulty"]) != levels for row in rows):
        return []
    charts = []
    for key in ("accuracy", "mean_tokens"):
        metric = describe(key)
        factor = 100 if metric.unit == "%" else 1
        numbers = [float(level) for level in levels]
        series = []
        for row in rows:
            values = [factor * row.summary["by_difficulty"][level][key] for level in levels]
            series.append(_line(row.entry, numbers, values, seen_as, row.run))
        title = f"{metric.label.capitalize()} by difficulty{on}"
        whole = all(number.is_integer() for number in numbers)
        charts.append(Chart(f"{key}_difficulty{suffix}", title, "difficulty", _with_unit(key), series, whole_x=whole))
    return charts


def training_charts(entries: Sequence[Entry]) -> list[Chart]:
    """What the runs logged, step by step, smoothed; a metric that no run has is left out."""
    seen_as = looks(entries)
    charts = []
    for key in TRAINING_METRICS:
        series = []
        for run, entry in enumerate(entries):
            points = [(line["step"], line[key]) for line in entry.metrics if math.isfinite(line.get(key, math.nan))]
            if points:
                steps, values = _columns(points)
                factor = 100 if describe(key).unit == "%" else 1
                smoothed = smooth([factor * value for value in values], smoothing_width(len(points)))
                every = math.ceil(len(points) / CURVE_POINTS)
                # The last point stays: it is where the run ended.
                kept = sorted({*range(0, len(points), every), len(points) - 1})
                series.append(_line(entry.name, [steps[k] for k in kept], [smoothed[k] for k in kept], seen_as, run))
        if series:
            note = f"{describe(key).definition}; moving mean over a tenth of the run"
            title = f"{describe(key).label.capitalize()} over training"
            charts.append(
                Chart(f"training_{key}", title, "optimizer step", _with_unit(key), series, note=note, whole_x=True)
            )
    return charts


def _file_name(text: str) -> str:
    """Part of a file's name: benchmarks and modes come from files that others may have written."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text)[:60]


def _line(name: str, x: Sequence[float], y: Sequence[float], seen_as: Sequence[Look], run: int) -> Series:
    return Series(name, x, y, seen_as[run].style, run=run, group=seen_as[run].group)


def _ends(summary: Mapping[str, Any], key: str, factor: float = 1) -> tuple[float, float]:
    """A metric's interval; its value twice where none could be had."""
    low, high = summary.get(f"{key}_interval") or (summary[key], summary[key])
    return factor * low, factor * high


def _columns(points: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    first, second = zip(*points, strict=True)
    return list(first), list(second)


def _with_unit(key: str) -> str:
    metric = describe(key)
    return f"{metric.label}, {metric.unit}" if metric.unit and metric.unit not in metric.label else metric.label


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
