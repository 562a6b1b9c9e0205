"""The table at the end of a sweep: a row a job, what it set and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from concise_rl.errors import printable
from concise_rl.reporting.glossary import describe
from concise_rl.reporting.run_log import SUMMARY_FILE, read_summary

HEADER = ("job", "accuracy", "change", "tokens", "change")


def sweep_rows(jobs: Sequence[tuple[Path, str]]) -> list[list[str]]:
    """A row a job, header first; a job without an evaluation has dashes, and one that did not finish says so.

    Args:
        jobs: folder and name of each.
    """
    rows = [list(HEADER)]
    for folder, name in jobs:
        summary = read_summary(folder) if (folder / SUMMARY_FILE).exists() else {}
        after, change = summary.get("after") or {}, summary.get("difference")
        rows.append([
            name,
            describe("accuracy").text(after.get("accuracy")) if summary else "failed",
            _change(change, "accuracy_points", "points"),
            describe("mean_tokens").text(after.get("mean_tokens")),
            _change(change, "tokens_percent", "%"),
        ])  # fmt: skip
    return rows


def sweep_table(jobs: Sequence[tuple[Path, str]]) -> Table:
    """`sweep_rows` for the terminal."""
    header, *body = sweep_rows(jobs)
    table = Table(
        caption="change against the model before training, [...] at 95 %", caption_justify="left", header_style="bold"
    )
    for k, name in enumerate(header):
        table.add_column(name, justify="right" if k else "left", overflow="fold")
    for row in body:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _change(change: Mapping[str, Any] | None, key: str, unit: str) -> str:
    if not change or change.get(key) is None or change.get(f"{key}_interval") is None:
        return "–"
    digits = 0 if unit == "%" else 1
    low, high = change[f"{key}_interval"]
    return f"{change[key]:+.{digits}f} {unit} [{low:+.{digits}f}, {high:+.{digits}f}]"
