"""What `concise-rl select` kept and why, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show_selection(report: Mapping[str, Any], out: Path) -> None:
    """A few sentences, and a table by difficulty where the problems have one."""
    console = Console(highlight=False)
    what = "pairs" if report["pairs"] else "rows"
    console.print(
        f"{report['rows']} {what} from {report['samples']} samples of {report['problems']} problems "
        f"({report['right']} right; {report['problems_without_right']} problems without a right answer)"
    )
    shorter = f"{report['tokens_kept']:.1f} tokens"
    if report["tokens_right"]:
        shorter += f" against {report['tokens_right']:.1f} of all right answers"
    if report["tokens_rejected"]:
        shorter += f", rejected {report['tokens_rejected']:.1f}"
    console.print(f"{report['problems_kept']} problems kept, on average {shorter}")
    if report["repeated"]:
        console.print(f"{report['repeated']} samples stood in another file too and were counted once")
    if report["unscorable"]:
        console.print(f"{report['unscorable']} samples had no verdict and were left out")
    if report["by_difficulty"]:
        table = Table("difficulty", "samples", "accuracy", "kept", "tokens", "tokens kept")
        for row in report["by_difficulty"]:
            accuracy = "" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %"
            table.add_row(
                f"{row['difficulty']:g}", str(row["samples"]), accuracy, str(row["kept"]), *map(_number, (
                    row["tokens"], row["tokens_kept"],
                )),
            )  # fmt: skip
        console.print(table)
    console.print(f"written: {out}   report: {out.name}.report.json", soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
