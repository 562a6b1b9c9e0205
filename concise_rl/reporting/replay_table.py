"""The table of a replay: what each method makes of the same stored rollouts."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from concise_rl.errors import UserError
from concise_rl.reporting.glossary import describe
from concise_rl.reporting.summary import csv_cell, markdown_table

if TYPE_CHECKING:
    from concise_rl.evaluation.replay import Replay

Row = Mapping[str, Any]

SHOWN = (
    "reward_correct",
    "reward_wrong",
    "mean_abs_credit",
    "zero_credit_frac",
    "flipped_correct_frac",
    "wiped_correct_frac",
    "credit_length_correlation",
)
"""Statistics of a replay that the terminal shows; those that no method has are left out."""


def replay_rows(result: Replay) -> list[dict[str, Any]]:
    """One row a method, with the statistics that are shown."""
    return [
        {"method": name} | {key: statistics[key] for key in SHOWN if key in statistics}
        for name, statistics in result.methods.items()
    ]


def show_replay(result: Replay, *, console: Console | None = None) -> None:
    """Print the table of a replay."""
    rollouts = {(row["step"], row["prompt_key"], row["sample"]) for row in result.rows}
    steps = {step for step, _, _ in rollouts}
    title = f"{len(rollouts)} completions of {len(steps)} steps, shaped again"
    console = console or Console(highlight=False)
    console.print(replay_table(replay_rows(result), title=title))
    if result.as_sampled:
        parts = "; ".join(f"{name}: {', '.join(found)}" for name, found in result.as_sampled.items())
        console.print(
            f"Taken as sampled, without what these methods change in sampling - {parts}.", markup=False, soft_wrap=True
        )


def write_rows(result: Replay, path: str | Path) -> None:
    """Write every completion's reward and credit under each method as CSV.

    Raises:
        UserError: the file cannot be written.
    """
    write_csv(result.rows, path)


def table_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Rows of dicts as text, header first, in the words and units of the glossary; a missing value is a dash."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [[describe(key).label for key in keys], *([_cell(key, row.get(key)) for key in keys] for row in rows)]


def replay_table(rows: Sequence[Row], *, title: str | None = None) -> Table:
    """Rows of dicts for the terminal; the first column names the method."""
    header, *body = table_rows(rows)
    table = Table(title=title, title_justify="left", header_style="bold")
    for k, name in enumerate(header):
        table.add_column(Text(name), justify="right" if k else "left", overflow="fold", no_wrap=not k)
    for row in body:
        table.add_row(*map(Text, row))
    return table


def replay_markdown(rows: Sequence[Row]) -> str:
    """Rows of dicts as a Markdown table."""
    return markdown_table(table_rows(rows))


def write_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Write rows of dicts as CSV, numbers unrounded.

    Raises:
        UserError: the file cannot be written.
    """
    rows = list(rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, keys, lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another file for the table") from error


def _cell(key: str, value: Any) -> str:
    return describe(key).text(value) if value is None or isinstance(value, float) else str(value)
