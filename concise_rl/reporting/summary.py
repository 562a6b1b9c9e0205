"""Before and after: the table with intervals, the headline sentence, and three completions side by side.

A summary is a dict with `accuracy`, `accuracy_interval`, `mean_tokens`, `mean_tokens_interval`, `problems`, and where
known `mean_tokens_correct`, `mean_tokens_wrong`, `truncated_frac`, `oracle_ratio`. A difference is a dict with
`accuracy_points`, `tokens_percent` and their `..._interval`, paired by problem. Intervals are [low, high] at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from concise_rl.errors import printable
from concise_rl.evaluation.intervals import FEW_PROBLEMS
from concise_rl.reporting.glossary import describe

Summary = Mapping[str, Any]

ROWS = (
    "accuracy",
    "mean_tokens",
    "oracle_ratio",
    "mean_tokens_correct",
    "mean_tokens_wrong",
    "truncated_frac",
    "unscorable_frac",
    "problems",
)
"""What the table shows, in this order; a row that no summary has is left out."""

MEASURES = (
    "accuracy",
    "pass_at_k",
    "majority_at_k",
    "mean_tokens",
    "median_tokens",
    "p90_tokens",
    "mean_think_tokens",
    "mean_answer_tokens",
    "mean_tokens_correct",
    "mean_tokens_wrong",
    "tokens_cv",
    "oracle_ratio",
    "truncated_frac",
    "unscorable_frac",
    "repetition_frac",
    "hedges_per_100",
    "thinking_markers_per_100",
    "samples",
    "problems",
)
"""All that an evaluation by itself has to say; `..._k` stands for every k that a summary has."""

TERMINAL_CHARACTERS = 600
"""A completion in the terminal is cut to about this; the report shows it whole."""


@dataclass(frozen=True)
class Answer:
    """One completion: its text, sampled tokens including EOS, and whether it is right."""

    text: str
    tokens: int
    correct: bool

    @property
    def caption(self) -> str:
        return f"{self.tokens} tokens, {'right' if self.correct else 'wrong'}"


@dataclass(frozen=True)
class CompletionPair:
    """The same problem answered before and after training."""

    prompt: str
    reference: str
    before: Answer
    after: Answer

    @property
    def saving(self) -> int:
        """Tokens saved; negative where the answer grew."""
        return self.before.tokens - self.after.tokens


def headline(difference: Summary) -> str:
    """Such as `tokens -53 % [-55, -51], accuracy -0.4 points [-1.6, +0.8]: no loss shown at 95 %`.

    A change counts as shown when its 95 % interval leaves out 0. "No loss shown" says that, not that there is none:
    the interval's lower end is the loss that the data still allow. Few problems are called few.
    """
    accuracy_low, accuracy_high = difference["accuracy_points_interval"]
    tokens_low, tokens_high = difference["tokens_percent_interval"] or (math.nan, math.nan)
    verdicts = []
    if tokens_low > 0:
        verdicts.append("longer")
    elif tokens_high >= 0:
        verdicts.append("no saving shown")
    if accuracy_high < 0:
        verdicts.append("a loss of accuracy")
    elif accuracy_low > 0:
        verdicts.append("a gain of accuracy")
    else:
        verdicts.append("no loss shown")
    few = _few(difference)
    return (
        f"tokens {_tokens_change(difference)}, accuracy {_accuracy_change(difference)}: {', '.join(verdicts)} at 95 %"
        + (f"; {few}" if few else "")
    )


def _few(found: Summary) -> str:
    problems = found.get("problems")
    return f"{problems} problems are few" if problems is not None and problems < FEW_PROBLEMS else ""


def summary_rows(
    columns: Mapping[str, Summary], difference: Summary | None = None, keys: Sequence[str] = ROWS
) -> list[list[str]]:
    """The table as text: a header, then a row a metric. With a difference the last column is the change.

    Args:
        columns: heading to summary, such as `{"before": ..., "after": ...}`; a single one is a plain evaluation.
        difference: of the last column to the first.
        keys: the metrics, such as `ROWS` or `MEASURES`.
    """
    first, *_, last = [*columns.values()] * 2
    rows = [["", *columns, *(["change"] if difference else [])]]
    for key in _expanded(keys, columns.values()):
        if any(summary.get(key) is not None for summary in columns.values()):
            cells = [_cell(key, summary) for summary in columns.values()]
            change = [_change(key, first, last, difference)] if difference else []
            rows.append([describe(key).label, *cells, *change])
    return rows


def difficulty_rows(columns: Mapping[str, Summary]) -> list[list[str]]:
    """Accuracy and tokens by difficulty, one row a level; empty unless every summary has the same `by_difficulty`."""
    levels = [summary.get("by_difficulty") or {} for summary in columns.values()]
    if not levels or not levels[0] or any(list(level) != list(levels[0]) for level in levels):
        return []
    shown = ("accuracy", "mean_tokens", "oracle_ratio")
    keys = [key for key in shown if any(cells.get(key) is not None for cells in levels[0].values())]
    rows = [["difficulty", *(f"{describe(key).label}, {name}" for key in keys for name in columns)]]
    for value in levels[0]:
        rows.append([str(value), *(describe(key).text(level[value].get(key)) for key in keys for level in levels)])
    return rows


def length_rows(summary: Summary) -> list[list[str]]:
    """Accuracy of the quarters of lengths, from short to long; empty where there are fewer than two of them."""
    quarters = summary.get("accuracy_by_length") or []
    if len(quarters) < 2:
        return []
    cells = [[_cell(key, quarter) for key in ("mean_tokens", "accuracy")] for quarter in quarters]
    return [["lengths", *(describe(key).label for key in ("mean_tokens", "accuracy")), "completions"]] + [
        [f"{i + 1} of {len(quarters)}", *own, str(quarter["rows"])]
        for i, (own, quarter) in enumerate(zip(cells, quarters, strict=True))
    ]


def summary_table(
    columns: Mapping[str, Summary], difference: Summary | None = None, keys: Sequence[str] = ROWS
) -> Table:
    """`summary_rows` for the terminal."""
    header, *body = summary_rows(columns, difference, keys)
    table = Table(caption="[...] is the 95 % confidence interval", caption_justify="left", header_style="bold")
    for name in header:
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    for row in body:
        table.add_row(*map(Text, row))
    return table


def summary_markdown(
    columns: Mapping[str, Summary], difference: Summary | None = None, keys: Sequence[str] = ROWS
) -> str:
    """`summary_rows` as a Markdown table."""
    return markdown_table(summary_rows(columns, difference, keys))


def markdown_table(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Header and body as a Markdown table, the first `text_columns` left, the others right aligned."""
    header, *body = rows
    lines = [header, [*["---"] * text_columns, *["---:"] * (len(header) - text_columns)], *body]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def pick_pairs(pairs: Sequence[CompletionPair]) -> list[tuple[str, CompletionPair]]:
    """Three instructive pairs, each with the reason for its choice: the typical, the best and the worst.

    The median saving of the problems right before and after (of all, where there are none); the largest saving that
    ends right; a problem that was right and is wrong now or, where there is none, the one that grew most or, where none
    grew, the smallest saving. Ties go to the earlier pair.
    """
    if not pairs:
        return []
    rest = sorted(range(len(pairs)), key=lambda i: (pairs[i].saving, -i))
    kept = [i for i in rest if pairs[i].before.correct and pairs[i].after.correct]
    typical = kept or rest
    middle = typical[(len(typical) - 1) // 2]
    rest.remove(middle)
    picked = [("median saving", middle)]
    best = next((i for i in reversed(rest) if pairs[i].after.correct), None)
    if best is not None:
        picked.append(("largest saving with a right answer", best))
        rest.remove(best)
    lost = [i for i in rest if pairs[i].before.correct and not pairs[i].after.correct]
    if lost:
        picked.append(("was right, is wrong now", min(lost)))
    elif rest:
        picked.append(("grew most" if pairs[rest[0]].saving < 0 else "smallest saving", rest[0]))
    return [(reason, pairs[i]) for reason, i in picked]


def pairs_view(picked: Sequence[tuple[str, CompletionPair]]) -> RenderableType:
    """The pairs for the terminal, side by side; what a model wrote is never read as markup or terminal code."""
    tables = []
    for reason, pair in picked:
        title = Text.assemble(
            (f"{reason}: ", "bold"), shorten(printable(pair.prompt)), f"  (answer {shorten(printable(pair.reference))})"
        )
        table = Table(title=title, title_justify="left", expand=True, show_lines=False)
        for name, answer in (("before", pair.before), ("after", pair.after)):
            style = "green" if answer.correct else "red"
            table.add_column(Text.assemble(f"{name}, ", (answer.caption, style)), ratio=1, overflow="fold")
        table.add_row(*(Text(shorten(printable(answer.text))) for answer in (pair.before, pair.after)))
        tables.append(table)
    return Group(*tables)


def csv_cell(value: Any) -> Any:
    """Numbers as they are; text printable, and with an apostrophe where a spreadsheet would run it as a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def shorten(text: str, limit: int = TERMINAL_CHARACTERS) -> str:
    """The text's two ends, the left out middle counted."""
    left_out = len(text) - limit
    if left_out <= 0:
        return text
    return f"{text[: limit // 2]} [... {left_out} characters ...] {text[-(limit - limit // 2) :]}"


def _expanded(keys: Sequence[str], summaries: Iterable[Summary]) -> list[str]:
    """The keys, `pass_at_k` replaced by those of its family that a summary has, k rising."""
    known = {key for summary in summaries for key in summary}
    expanded: list[str] = []
    for key in keys:
        stem = key.removesuffix("_k")
        ks = sorted(int(k) for own, _, k in (name.rpartition("_") for name in known) if own == stem and k.isdecimal())
        expanded += [f"{stem}_{k}" for k in ks] if stem != key else [key]
    return expanded


def _cell(key: str, summary: Summary) -> str:
    text = describe(key).text(summary.get(key))
    if key == "problems" and _few(summary):
        text += " (few)"
    interval = summary.get(f"{key}_interval")
    return f"{text} {_interval(key, interval)}" if interval else text


def _interval(key: str, interval: Sequence[float]) -> str:
    return f"[{', '.join(describe(key).text(end).removesuffix(' %') for end in interval)}]"


def _accuracy_change(difference: Summary) -> str:
    low, high = difference["accuracy_points_interval"]
    return f"{difference['accuracy_points']:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _tokens_change(difference: Summary) -> str:
    if difference["tokens_percent_interval"] is None:  # nothing was said before
        return "-"
    low, high = difference["tokens_percent_interval"]
    return f"{difference['tokens_percent']:+.0f} % [{low:+.0f}, {high:+.0f}]"


def _change(key: str, before: Summary, after: Summary, difference: Summary) -> str:
    if key == "accuracy":
        return _accuracy_change(difference)
    if key == "mean_tokens":
        return _tokens_change(difference)
    old, new = before.get(key), after.get(key)
    if key == "problems" or old is None or new is None:
        return ""
    if describe(key).unit == "%":
        return f"{100 * (new - old):+.1f} points"
    return f"{100 * (new / old - 1):+.0f} %" if old else ""
