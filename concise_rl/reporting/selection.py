"""What `concise-rl sample` and `concise-rl select` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from concise_rl.errors import printable
from concise_rl.evaluation.columns import Columns, samples_of


def show_samples(stored: Columns, console: Console) -> None:
    """A line for each edit and stage of a store: how many, how often right, how long."""
    samples = samples_of(stored.numbers)
    table = Table(header_style="bold")
    for name in ("stage and edit", "problems", "unsolved", "completions", "right", "tokens"):
        table.add_column(name, justify="left" if name == "stage and edit" else "right")
    for stage in sorted(set(samples.stages)):
        for edit in sorted(set(samples.edits[samples.stages == stage])):
            own = (samples.stages == stage) & (samples.edits == edit)
            right = own & samples.correct & samples.scorable
            problems, solved = len(np.unique(samples.problem[own])), len(np.unique(samples.problem[right]))
            table.add_row(
                escape(printable(" ".join([*([stage] if stage else []), edit or "as it is"]))),
                *(str(problems), str(problems - solved), str(int(own.sum()))),
                *(_percent(right.sum() / own.sum()), f"{samples.lengths[own].mean():.1f}"),
            )
    console.print(table)
    console.print(f"{len(stored)} completions, {int(samples.lengths.sum())} sampled tokens: {stored.path}")


def show_selection(report: Mapping[str, Any], out: str, console: Console) -> None:
    """Counts, lengths before and after, what was left out, and the same by difficulty; for 80 columns."""
    kept, problems = report["problems_kept"], report["problems"]
    console.print(
        f"{report['selector']}: {report['rows']} {report['kind']} of {kept} of {problems} problems, from "
        f"{report['completions']} completions"
    )
    for reason, count in report["dropped"].items():
        console.print(f"  {count} problems left out: {printable(reason)}", markup=False)
    for name, count in (("repeated", "stood in two stores"), ("unscorable", "have no verdict")):
        if report[name]:
            console.print(f"  {report[name]} completions {count}")
    if report["empty_kept"]:
        console.print(f"  warning: {report['empty_kept']} of the chosen completions have no token")
    lengths = Table("tokens", "mean", "p10", "median", "p90", header_style="bold")
    shown = {"all": "tokens", "right": "tokens_right", "chosen": "tokens_kept", "rejected": "tokens_rejected"}
    for name, key in shown.items():
        if spread := report.get(key):
            lengths.add_row(name, *(f"{spread[column]:.1f}" for column in ("mean", "p10", "median", "p90")))
    console.print(lengths)
    if report["by_difficulty"]:
        console.print(_by_difficulty(report["by_difficulty"]))
    console.print(f"written: {out}   report: {out}.report.json", soft_wrap=True)


def _by_difficulty(levels: list[dict[str, Any]]) -> Table:
    table = Table(header_style="bold")
    for name in ("difficulty", "problems", "unsolved", "right", "tokens", "rows", "tokens kept"):
        table.add_column(name, justify="right")
    for level in levels:
        table.add_row(
            *(printable(str(level["difficulty"])), str(level["problems"]), str(level["without_right"])),
            *(_percent(level["accuracy"]), _number(level["tokens"]), str(level["rows"]), _number(level["tokens_kept"])),
        )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
