"""The comparison as rows of text, for the page, for Markdown and for CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from concise_rl.errors import printable
from concise_rl.evaluation.tradeoff import Tradeoff
from concise_rl.reporting.compare.load import BEFORE
from concise_rl.reporting.compare.results import Result
from concise_rl.reporting.glossary import describe
from concise_rl.reporting.summary import csv_cell, headline, markdown_table
from concise_rl.reporting.tradeoff import frontier_sentence, tradeoff_tables

COLUMNS = (
    "accuracy", "accuracy_spread", "mean_tokens", "mean_tokens_spread", "oracle_ratio", "mean_tokens_correct",
    "mean_tokens_wrong", "truncated_frac", "unscorable_frac", "runs",
)  # fmt: skip
_MAIN = ("accuracy", "mean_tokens")
"""That nobody is right is a result."""

_LEVEL_COLUMNS = _MAIN
_CHANGES = ("accuracy_points", "tokens_percent")
FRONT = " ●"
"""After the name of an entry on the Pareto front."""

Rows = list[list[str]]


def result_rows(rows: Sequence[Result]) -> Rows:
    """A row an entry; columns that say nothing (never measured, or 0 throughout) are left out, but for the main two."""
    keys = [key for key in COLUMNS if key in _MAIN or any(row.summary.get(key) for row in rows)]
    body = [
        [row.entry + FRONT * row.on_front, *(_with_interval(key, row.summary) for key in keys)]
        for row in rows
    ]  # fmt: skip
    return [["", *(describe(key).label for key in keys)], *body]


def difficulty_rows(rows: Sequence[Result], key: str) -> Rows:
    """A row an entry, a column a level of difficulty; empty unless every entry has the same two levels or more."""
    levels = list(rows[0].summary["by_difficulty"])
    if len(levels) < 2 or any(list(row.summary["by_difficulty"]) != levels for row in rows):
        return []
    body = [
        [row.entry, *(describe(key).text(row.summary["by_difficulty"][level].get(key)) for level in levels)]
        for row in rows
    ]
    return [[f"{describe(key).label} at difficulty", *levels], *body]


def sentences(rows: Sequence[Result]) -> list[tuple[str, str]]:
    """Entry and what changed against the baseline, in a plain sentence."""
    return [(row.entry, headline(row.difference)) for row in rows if row.difference]


def markdown(
    found: Mapping[str, Sequence[Result]],
    held: Mapping[str, Tradeoff],
    baseline: str,
    pictures: Mapping[str, str],
    verdicts: Mapping[str, str],
    settings: Rows,
) -> str:
    """The comparison for a paper's appendix or an issue.

    Args:
        found: benchmark to results.
        held: benchmark to its entries against the frontier.
        baseline: its name.
        pictures: title to file name.
        verdicts: benchmark to what it shows.
        settings: those that differ, header first; may be empty.
    """
    parts = ["# Comparison\n", *(f"\n**{_inline(said)}**\n" for said in verdicts.values())]
    if settings:
        parts.append(f"\n## Settings that differ\n\n{markdown_table([[_inline(c) for c in row] for row in settings])}")
    for benchmark, rows in found.items():
        problems = rows[0].summary["problems"]
        parts.append(f"\n## {_inline(benchmark)}: {problems} problems\n\n{markdown_table(_escaped(result_rows(rows)))}")
        parts.append(
            f"\n[...] is the 95 % confidence interval, problems resampled; {FRONT.strip()} is on the Pareto front of "
            "accuracy and tokens.\n"
        )
        said = sentences(rows)
        if said:
            lines = "".join(f"- **{_inline(entry)}**: {sentence}\n" for entry, sentence in said)
            parts.append(f"\nAgainst {_inline(baseline)}, paired by problem:\n\n{lines}")
        parts.append(f"\n{frontier_sentence(held[benchmark])}\n")
        parts += [
            f"\n{markdown_table(_escaped(table))}" for table in tradeoff_tables(held[benchmark], (BEFORE,)).values()
        ]
        for key in _LEVEL_COLUMNS:
            table = difficulty_rows(rows, key)
            if table:
                parts.append(f"\n{markdown_table(_escaped(table))}")
    parts += [f"\n![{_inline(title)}]({name})\n" for title, name in pictures.items()]
    return "".join(parts)


def csv_text(found: Mapping[str, Sequence[Result]], held: Mapping[str, Tradeoff]) -> str:
    """Every number, unrounded: a line an entry, benchmark and level of difficulty (`all` for the whole)."""
    lines = [line for name, rows in found.items() for row in rows for line in _csv_lines(row, held[name])]
    header = list(dict.fromkeys(key for line in lines for key in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _csv_lines(row: Result, held: Tradeoff) -> list[dict[str, Any]]:
    named = {"entry": csv_cell(row.entry), "benchmark": csv_cell(row.benchmark)}
    whole = {k: v for k, v in row.summary.items() if k != "by_difficulty"} | {"on_front": row.on_front}
    against = dict(held.entries[row.entry]["against"])
    for price, regret in against.pop("regret").items():
        against |= {key.replace("regret", f"regret_at_{price}", 1): value for key, value in regret.items()}
    changes = {**(row.difference or {}), **against}
    levels = [
        named | {"difficulty": csv_cell(level)} | _flat(cells) for level, cells in row.summary["by_difficulty"].items()
    ]
    return [named | {"difficulty": "all"} | _flat({**whole, **changes}), *levels]


def _flat(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Intervals as two columns; what is neither number nor interval has no place in a table of numbers."""
    flat: dict[str, Any] = {}
    for key, value in numbers.items():
        if key.endswith("_interval"):
            stem = key.removesuffix("_interval")
            flat[f"{stem}_low"], flat[f"{stem}_high"] = value or (None, None)
        elif value is None or isinstance(value, int | float):
            flat[key] = value
    return flat


def _with_interval(key: str, summary: Mapping[str, Any]) -> str:
    metric = describe(key)
    interval = summary.get(f"{key}_interval")
    ends = f" [{', '.join(metric.text(end).removesuffix(' %') for end in interval)}]" if interval else ""
    return metric.text(summary.get(key)) + ends


def _inline(text: str) -> str:
    """A name in Markdown: on one line, its marks shown rather than obeyed."""
    line = " ".join(printable(text).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!" else c for c in line)


def _escaped(rows: Rows) -> Rows:
    """Names and levels are data; `markdown_table` escapes the bar itself."""
    header, *body = rows
    return [[_cell(name) for name in header], *([_cell(name), *cells] for name, *cells in body)]


def _cell(text: str) -> str:
    return _inline(text).replace("\\|", "|")
