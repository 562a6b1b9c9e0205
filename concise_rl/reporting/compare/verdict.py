"""The sentence on top of a comparison: what it shows, and what it does not."""

from __future__ import annotations

from collections.abc import Sequence

from concise_rl.evaluation import difference
from concise_rl.reporting.compare.load import BEFORE
from concise_rl.reporting.compare.results import Result
from concise_rl.reporting.summary import headline

LARGE_POINTS = 2.0
"""A loss of accuracy that nobody would overlook: where the interval reaches so far, the sentence says so."""


def verdict(rows: Sequence[Result], baseline: str) -> str:
    """Who saves the most tokens without a shown loss of accuracy, whom it is not told apart from, who loses accuracy.

    A change is shown where its 95 % interval, paired by problem, leaves out 0.
    """
    others = [row for row in rows if row.difference is not None and not row.entry.startswith(BEFORE)]
    if not others:
        return f"Nothing is compared with {baseline} here."
    saving = [row for row in others if _saves(row)]
    kept = sorted((row for row in saving if not _loses(row)), key=lambda row: row.summary["mean_tokens"])
    lost = [row for row in saving if _loses(row)]
    if not kept:
        return _none(others, lost, baseline)
    best = kept[0]
    assert best.difference is not None
    parts = [f"{best.entry} saves the most tokens without a shown loss of accuracy: {headline(best.difference)}"]
    worst = best.difference["accuracy_points_interval"][0]
    if worst <= -LARGE_POINTS:
        parts.append(f"a loss of up to {-worst:.0f} points is not ruled out")
    like = [row.entry for row in kept[1:] if _not_shorter(best, row)]
    if like:
        parts.append(f"not told apart from it in tokens: {_list(like)}")
    if lost:
        parts.append(f"with a loss of accuracy: {_list([row.entry for row in lost])}")
    return f"Against {baseline}, {'; '.join(parts)}."


def _none(others: Sequence[Result], lost: Sequence[Result], baseline: str) -> str:
    said = f"Against {baseline}, no entry is shown to save tokens without a loss of accuracy"
    if lost:
        return f"{said}; with a loss: {_list([row.entry for row in lost])}."
    gains = [row.entry for row in others if row.difference and row.difference["accuracy_points_interval"][0] > 0]
    return f"{said}; {_list(gains)} gains accuracy." if gains else f"{said}."


def _saves(row: Result) -> bool:
    interval = row.difference["tokens_percent_interval"] if row.difference else None
    return interval is not None and interval[1] < 0


def _loses(row: Result) -> bool:
    return row.difference is not None and row.difference["accuracy_points_interval"][1] < 0


def _not_shorter(best: Result, other: Result) -> bool:
    """Whether the best one's tokens are not shown to be fewer, paired by problem."""
    interval = difference(other.evaluation, best.evaluation)["tokens_percent_interval"]
    return interval is None or interval[1] >= 0


def _list(names: Sequence[str]) -> str:
    shown = [*names[:4], *([f"{len(names) - 4} more"] if len(names) > 4 else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
