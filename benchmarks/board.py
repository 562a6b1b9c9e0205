"""The leaderboard of the test beds: one page with a slider for the price of a token, and the same as text and pictures.

Made by `python benchmarks/methods.py --table` from the rows of `benchmarks/leaderboard.py`: `leaderboard.html`, `.md`,
`.csv`, and a picture a bed, `leaderboard-<bed>.svg` and `.png`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import leaderboard
from benchmarks.leaderboard import BEFORE, Row
from benchmarks.stored import problems
from concise_rl.reporting.html import page_html, script_json, text_html
from concise_rl.reporting.methods_table import MethodEntry, method_entry
from concise_rl.reporting.page import STYLE
from concise_rl.reporting.plots import entry_name, plot_methods
from concise_rl.reporting.summary import csv_cell, markdown_table
from concise_rl.testbeds.beds import BEDS
from concise_rl.testbeds.frontier import PRICES

GOES_ON = "python benchmarks/methods.py --tasks running_total which_sum"

TITLES = {
    "running_total": "M: running totals, skip a step and risk an error",
    "which_sum": "S: which sum, check or guess",
}
KINDS = ("shaper", "advantage", "filter", "curriculum", "sampler", "edit", "cut", "schedule", "loss")
"""What a method is made of besides GRPO; `loss` where only the loss or its clipping differs."""


@dataclass(frozen=True)
class Board:
    """Rows of each bed's leaderboard, of the coefficient sweeps and of small groups on M, and how much is there.

    Attributes:
        beds: bed to rows, by regret at the middle price.
        sweeps: rows with `coefficient` and `value`.
        groups: rows of small groups.
        cells: that the experiment has.
        missing: that are not trained yet.
    """

    beds: Mapping[str, Sequence[Row]]
    sweeps: Sequence[Row]
    groups: Sequence[Row]
    cells: int
    missing: int

    @property
    def state(self) -> str:
        """How much of the experiment is there, and what goes on with it."""
        if not self.missing:
            return f"All {self.cells} cells are trained."
        done = self.cells - self.missing
        return f"{done} of {self.cells} cells are trained, {self.missing} are missing; `{GOES_ON}` goes on."


def write(out: Path, board: Board) -> None:
    """All files of the leaderboard."""
    for bed, rows in board.beds.items():
        for suffix in ("svg", "png"):
            plot_methods(rows, out / f"leaderboard-{bed}.{suffix}", leaderboard.stored_frontier(rows))
    if board.sweeps:
        leaderboard.plot_settings(board.sweeps, out / "leaderboard-coefficients.png")
    page = out / "leaderboard.html"
    page.write_text(html(board))
    page.with_suffix(".md").write_text(markdown(board))
    page.with_suffix(".csv").write_text(table_csv(board))
    print(f"written: {page}, .md and .csv\n{board.state}")


@cache
def made_of(method: str) -> MethodEntry:
    return method_entry(method)


def kinds_of(method: str) -> list[str]:
    """The kinds of component that a method has besides GRPO's own."""
    kinds = made_of(method).kinds
    return [kind for kind in KINDS if kind in kinds] or ["loss"]


# --- Markdown and CSV -------------------------------------------------------------------------------------------------

PREFACE = (
    "Each method trains the same reasoner with the same number of samples, on a bed whose best is known "
    "([testbeds.md](../testbeds.md)). A policy is worth accuracy - price x tokens; its regret is what it leaves of the "
    "best value there is, in points (hundredths of a right answer). [leaderboard.html](leaderboard.html) ranks by any "
    "price and draws it all; [leaderboard.csv](leaderboard.csv) has the numbers. What follows from them: "
    "[findings.md](findings.md)."
)
NOTES = (
    "[...] is a 95 % interval over problems, the seeds being samples of each; ± is half the range over seeds. "
    "Below: points under the frontier at the same tokens; beyond: tokens beyond those with which the frontier has the "
    "same accuracy; gap over budgets: points under the frontier, averaged over budgets, the policy cut off at each. "
    "Sampled: tokens of all completions of a training; taught: share of its rows that had credit. Methods that do "
    "badly stay."
)


def markdown(board: Board) -> str:
    """The leaderboard as text."""
    lines = ["# Leaderboard of the test beds", "", PREFACE, "", NOTES, "", board.state, ""]
    for bed, rows in board.beds.items():
        lines += [f"## {TITLES[bed]}", "", leaderboard.facts(rows), leaderboard.start(rows), ""]
        lines += [*markdown_table(headline_table(rows)).splitlines(), "", *leaderboard.bed_tables(rows)]
        lines += [f"![accuracy against tokens, with the frontier](leaderboard-{bed}.png)", ""]
    if board.sweeps:
        lines += ["## Coefficients, on M, one seed", "", *markdown_table(headline_table(board.sweeps)).splitlines(), ""]
        lines += ["![accuracy against tokens by coefficient](leaderboard-coefficients.png)", ""]
    if board.groups:
        lines += ["## Small groups, on M, as many rows a step", ""]
        lines += [*markdown_table(headline_table(board.groups)).splitlines(), ""]
    return "\n".join(lines)


def headline_table(rows: Sequence[Row]) -> list[list[str]]:
    """Accuracy, tokens, seeds and cost of each row."""
    heads = ["", "seeds", "accuracy, %", "±", "tokens", "±", "x oracle", "sampled, thousand", "taught, %", "s"]
    return [heads, *([entry_name(row), *_headline(row)] for row in rows)]


def _headline(row: Row) -> list[str]:
    def half_range(name: str, factor: float) -> str:
        own = row[name]
        return f"{factor * (max(own) - min(own)) / 2:.1f}" if len(own) > 1 else ""

    return [
        str(row["seeds"]),
        leaderboard.with_interval(row, "accuracy", ".1f", 100),
        half_range("accuracy_seeds", 100),
        leaderboard.with_interval(row, "mean_tokens", ".1f"),
        half_range("mean_tokens_seeds", 1),
        leaderboard.with_interval(row, "oracle_ratio", ".2f"),
        f"{row['sampled_tokens'] / 1000:.0f}",
        f"{100 * row['taught']:.0f}",
        f"{row['training_seconds']:.0f}",
    ]


def table_csv(board: Board) -> str:
    """A line a bed and entry, unrounded; sweeps and small groups too."""
    parts = [(bed, "leaderboard", row) for bed, rows in board.beds.items() for row in rows]
    parts += [("running_total", "coefficient", row) for row in board.sweeps]
    parts += [("running_total", "group size", row) for row in board.groups]
    lines = [{"bed": bed, "part": part} | _numbers(row) for bed, part, row in parts]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _numbers(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {name: csv_cell(row[name]) for name in ("method", "setting", "seeds")}
    against = {key: value for key, value in row["against"].items() if key != "regret"}
    for price, regret in row["against"]["regret"].items():
        against |= {key.replace("regret", f"regret_at_{price}", 1): value for key, value in regret.items()}
    plain = {key: value for key, value in row.items() if key.startswith(("accuracy", "mean_tokens", "budget_area"))}
    for key, value in (plain | against).items():
        if key.endswith("_interval"):
            stem = key.removesuffix("_interval")
            found |= dict(zip((f"{stem}_low", f"{stem}_high"), value or (None, None), strict=True))
        elif not isinstance(value, list):
            found[key] = value
    for level, own in row["slices"].items():
        found |= {f"{name} {level}": own[name] for name in ("accuracy", "mean_tokens")}
    return found | {name: row[name] for name in ("sampled_tokens", "taught", "training_seconds", "steps")}


# --- the page ---------------------------------------------------------------------------------------------------------


def html(board: Board) -> str:
    """The page: its data, a table that stands without a script, and the script that draws and ranks."""
    folder = Path(__file__).parent
    content = {"prices": PRICES, "kinds": KINDS, "beds": [_bed(bed, board) for bed in board.beds]}
    body = (folder / "board.html").read_text()
    state = text_html(board.state.replace("`", ""))
    facts = "".join(f"<p class='note'>{text_html(leaderboard.facts(rows))}</p>" for rows in board.beds.values())
    fixed = "".join(f"<h3>{text_html(TITLES[bed])}</h3>{_fixed_table(rows)}" for bed, rows in board.beds.items())
    for name, text in (("state", state), ("facts", facts), ("notes", text_html(NOTES)), ("fixed", fixed)):
        body = body.replace(f"{{{name}}}", text)
    return page_html(
        "Leaderboard of the test beds",
        body,
        data={"board": ("application/json", script_json(_short(content)))},
        script=(folder / "board.js").read_text(),
        style=STYLE + (folder / "board.css").read_text(),
    )


def _fixed_table(rows: Sequence[Row]) -> str:
    """Regret at the three prices, for print and for browsers without a script."""
    heads = "".join(f"<th scope='col'>{head}</th>" for head in ("", *(f"regret at {price:g}" for price in PRICES)))
    lines = []
    for row in rows:
        regrets = (row["against"]["regret"][f"{price:g}"]["regret"] for price in PRICES)
        cells = "".join(f"<td>{regret:.1f}</td>" for regret in regrets)
        lines.append(f"<tr><th scope='row'>{text_html(entry_name(row))}</th>{cells}</tr>")
    return f"<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _bed(bed: str, board: Board) -> dict[str, Any]:
    rows = board.beds[bed]
    before = {"name": BEFORE.strip("*"), "a": rows[0]["before"]["accuracy"], "t": rows[0]["before"]["mean_tokens"]}
    sweeps: dict[str, list[dict[str, Any]]] = {}
    for row in board.sweeps if bed == "running_total" else ():
        point = {"value": float(row["value"]), "a": row["accuracy"], "t": row["mean_tokens"]}
        sweeps.setdefault(row["method"], []).append(point | {"coefficient": row["coefficient"]})
    return {
        "name": bed,
        "title": TITLES[bed],
        "frontier": leaderboard.stored_frontier(rows),
        "levels": [{"name": name, "frontier": corners} for name, corners in level_frontiers(bed).items()],
        "before": before | {"levels": _levels(rows[0]["before"])},
        "entries": [_entry(row) for row in rows],
        "sweeps": {method: sorted(points, key=lambda own: own["value"]) for method, points in sweeps.items()},
    }


def _entry(row: Row) -> dict[str, Any]:
    return {
        "name": entry_name(row),
        "method": row["method"],
        "kinds": kinds_of(row["method"]),
        "made": made_of(row["method"]).components,
        "question": made_of(row["method"]).question,
        "a": row["accuracy"],
        "t": row["mean_tokens"],
        "covariance": row["covariance"],
        "seeds": [list(pair) for pair in zip(row["mean_tokens_seeds"], row["accuracy_seeds"], strict=True)],
        "levels": _levels(row),
        "hard": [row["slices"]["hard"]["mean_tokens"], row["slices"]["hard"]["accuracy"]],
        "gap": row["against"]["budget_gap"],
        "sampled": row["sampled_tokens"],
        "taught": row["taught"],
    }


def _levels(row: Row) -> list[list[float]]:
    return [[own["mean_tokens"], own["accuracy"]] for name, own in row["slices"].items() if name.startswith("n=")]


@cache
def level_frontiers(bed: str) -> dict[str, list[list[float]]]:
    """Level to the corners of its own frontier, on the test problems."""
    by_level: dict[str, list[str]] = {}
    for prompt in problems(bed):
        by_level.setdefault(f"n={prompt.columns['difficulty']}", []).append(str(prompt.messages[-1]["content"]))
    frontiers = {name: BEDS[bed].frontier(own) for name, own in sorted(by_level.items())}
    return {name: [[p.tokens, p.accuracy] for p in found.mixtures] for name, found in frontiers.items()}


def _short(value: Any) -> Any:
    """Numbers to six digits: what a screen shows, in half the bytes."""
    if isinstance(value, Mapping):
        return {key: _short(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_short(own) for own in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
