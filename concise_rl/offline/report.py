"""What a selection kept and why, as JSON values."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from concise_rl.offline.stores import Stores
from concise_rl.samples import Array, Selection


def report_path(out: Path) -> Path:
    """Where the report of a file of rows stands."""
    return out.with_name(f"{out.name}.report.json")


def report_of(stores: Stores, selection: Selection) -> dict[str, Any]:
    """Counts, lengths before and after, what was left out and why, and the same by difficulty.

    `accuracy` and lengths before are over completions with a verdict; `tokens_kept` over the rows that were selected,
    of pairs the chosen sides. `sampled_tokens` is what all completions cost.
    """
    samples, lengths = stores.samples, stores.samples.lengths
    kept_problems = np.unique(samples.problem[selection.rows])
    report: dict[str, Any] = {
        "stores": [
            {"path": str(part.path), "completions": len(part), "settings": dict(part.settings)} for part in stores.parts
        ],
        "completions": len(samples),
        "repeated": stores.repeated,
        "unscorable": int((~samples.scorable).sum()),
        "truncated": int(samples.truncated.sum()),
        "sampled_tokens": int(lengths.sum()),
        "problems": len(samples.problems),
        "problems_kept": len(kept_problems),
        "dropped": dict(Counter(selection.dropped.values()).most_common()),
        "kind": "rows" if selection.rejected is None else "pairs",
        "rows": len(selection),
        "kept_tokens": int(lengths[selection.rows].sum()),
        "tokens": _spread(lengths[samples.scorable]),
        "tokens_right": _spread(lengths[samples.correct & samples.scorable]),
        "tokens_kept": _spread(lengths[selection.rows]),
        "empty_kept": int((lengths[selection.rows] == 0).sum()),
        "by_difficulty": _by_difficulty(stores, selection),
    }
    if selection.rejected is not None:
        report["tokens_rejected"] = _spread(lengths[selection.rejected])
    if selection.weights is not None:
        report["weights"] = _spread(selection.weights)
    return report


def _by_difficulty(stores: Stores, selection: Selection) -> list[dict[str, Any]]:
    """One entry a level, from easy to hard; problems without a level in none."""
    samples = stores.samples
    levels = stores.difficulty[samples.places]
    right = samples.correct & samples.scorable
    kept_lengths, kept_levels = samples.lengths[selection.rows], levels[selection.rows]
    found = []
    for level in _in_order(set(levels) - {None}):
        own = levels == level
        judged, solved = own & samples.scorable, np.unique(samples.problem[own & right])
        problems = len(np.unique(samples.problem[own]))
        found.append(
            {
                "difficulty": json.loads(level),
                "problems": problems,
                "without_right": problems - len(solved),
                "accuracy": float(right[judged].mean()) if judged.any() else None,
                "tokens": _mean(samples.lengths[judged]),
                "rows": int((kept_levels == level).sum()),
                "tokens_kept": _mean(kept_lengths[kept_levels == level]),
            }
        )
    return found


def _in_order(levels: set[str]) -> list[str]:
    values = {level: json.loads(level) for level in levels}
    numbers = all(isinstance(value, int | float) for value in values.values())
    return sorted(levels, key=values.__getitem__ if numbers else str)


def _spread(values: Array) -> dict[str, float] | None:
    if not len(values):
        return None
    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    return {"mean": float(values.mean()), "p10": low, "median": median, "p90": high}


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None
