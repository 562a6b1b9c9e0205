"""The table of a replay: what each method makes of the same stored rollouts."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from concise_rl.errors import UserError
from concise_rl.reporting.summary import markdown_table

Row = Mapping[str, Any]


def table_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Rows of dicts as text, header first: a fraction (`..._frac`) in percent, a missing value as a dash."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [[_heading(key) for key in keys], *([_cell(key, row.get(key)) for key in keys] for row in rows)]


def replay_table(rows: Sequence[Row], *, title: str | None = None) -> Table:
    """The rows for the terminal; the first column names the method."""
    header, *body = table_rows(rows)
    table = Table(title=title, title_justify="left", header_style="bold")
    for k, name in enumerate(header):
        table.add_column(Text(name), justify="right" if k else "left", overflow="fold")
    for row in body:
        table.add_row(*map(Text, row))
    return table


def replay_markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    return markdown_table(table_rows(rows))


def show_table(rows: Sequence[Row], *, title: str | None = None, console: Console | None = None) -> None:
    """Print the rows."""
    (console or Console(highlight=False)).print(replay_table(rows, title=title))


def write_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Write the rows as CSV, numbers unrounded.

    Raises:
        UserError: the file cannot be written.
    """
    rows = list(rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, keys, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another file for the table") from error


def _heading(key: str) -> str:
    return key.removesuffix("_frac").replace("_", " ")


def _cell(key: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{100 * value:.1f} %" if key.endswith("_frac") else f"{value:.3f}"
    return str(value)
