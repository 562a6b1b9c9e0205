"""What `concise-rl eval` shows: how far it is, and the tables that go beyond the summary."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from concise_rl.errors import printable
from concise_rl.reporting.glossary import describe
from concise_rl.reporting.progress import clock
from concise_rl.reporting.summary import difficulty_rows, length_rows

LOG_LINES = 10
"""Progress lines of an evaluation where standard output is no terminal."""


@contextmanager
def counting(name: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Shows completions done and to do, the rate, and the time left: a bar, or lines where there is no terminal.

    What is yielded takes the number done and the number of all; what was done at its first call was done before, and
    does not count in the rate.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    started, before, lines = time.monotonic(), -1, 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None, pace="")

        def show(done: int, total: int) -> None:
            nonlocal started, before, lines
            if before < 0:
                started, before = time.monotonic(), done
            rate = (done - before) / max(1e-9, time.monotonic() - started)
            pace = f"{rate:.1f}/s  {clock((total - done) / rate)} left" if done > before else ""
            bar.update(task, completed=done, total=total, pace=pace)
            if not console.is_terminal and done > before and done * LOG_LINES >= total * (lines + 1):
                lines = done * LOG_LINES // total
                console.print(f"{name}: {done}/{total} completions  {pace}", markup=False, soft_wrap=True)

        yield show


def sampling_line(settings: Mapping[str, Any]) -> str:
    """How the completions were drawn, in one line; from `Evaluation.settings`, empty where they are not known."""
    if "temperature" not in settings:
        return ""
    cuts = ", ".join(f"{name} {settings[name]:g}" for name in ("top_p", "top_k", "min_p") if name in settings)
    samples = settings.get("samples", 1)
    mode = settings.get("mode") or {"name": "as_trained"}
    parts = [
        f"sampled at temperature {settings['temperature']:g}, {cuts}" if settings["temperature"] else "greedy",
        f"at most {settings['max_new_tokens']} tokens",
        f"{samples} {'sample' if samples == 1 else 'samples'} a problem",
        f"seed {settings.get('seed')}",
        f"thinking ends with {settings['think_end']}",
    ]
    if mode["name"] != "as_trained":
        parts.append(f"mode {mode['name']}" + (f" at {mode['budget']} tokens" if mode.get("budget") else ""))
    if settings.get("edit"):
        fields = ", ".join(f"{name} {value}" for name, value in settings["edit"].items() if name != "class")
        parts.append(f"prompts edited by {settings['edit']['class']}" + (f" ({fields})" if fields else ""))
    if settings.get("chat_template_kwargs"):
        parts.append(f"chat template with {json.dumps(settings['chat_template_kwargs'])}")
    return "; ".join(parts)


def detail_tables(name: str, summary: Mapping[str, Any]) -> list[Table]:
    """Of one evaluation, as far as it has them: by difficulty, by length, the budget curve, and YapScores."""
    tables = []
    if levels := difficulty_rows({name: summary}):
        header = [cell.removesuffix(f", {name}") for cell in levels[0]]
        tables.append(_table(f"{name} by difficulty", [header, *levels[1:]]))
    if quarters := length_rows(summary):
        tables.append(_table(f"{name} by length within a difficulty", quarters))
    if curve := summary.get("budget_curve"):
        rows = [["budget", "accuracy", "tokens"]]
        for point in curve["points"]:
            rows.append(
                [str(point["budget"]), *(describe(key).text(point[key]) for key in ("accuracy", "mean_tokens"))]
            )
        tables.append(_table(f"{name}, {curve['mode']} at a budget", rows))
    if efforts := summary.get("effort_curve"):
        rows = [["effort", "accuracy", "tokens"]]
        for point in efforts["points"]:
            rows.append([point["level"], *(describe(key).text(point[key]) for key in ("accuracy", "mean_tokens"))])
        tables.append(_table(f"{name} at levels of effort", rows))
    if yap := summary.get("yap"):
        rows = [["category", "YapScore", "problems"]]
        for category, found in yap["categories"].items():
            rows.append([category, _characters(found, "yap_score"), str(found["problems"])])
        rows.append(["YapIndex", _characters(yap, "yap_index"), ""])
        tables.append(_table(f"{name}: characters beyond the least that answers, {yap['empty_frac']:.1%} empty", rows))
    return tables


def _characters(found: Mapping[str, Any], key: str) -> str:
    interval = found[f"{key}_interval"]
    return f"{found[key]:.0f}" + (f" [{interval[0]:.0f}, {interval[1]:.0f}]" if interval else "")


def _table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    header, *body = rows
    table = Table(title=Text(title), title_justify="left", header_style="bold")
    for i, name in enumerate(header):
        table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    for row in body:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
