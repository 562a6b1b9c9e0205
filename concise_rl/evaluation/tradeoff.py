"""Rows of an evaluation against the best that is possible: regret at prices of a token, distances, slices.

Every number has a 95 % interval of a bootstrap over problems; the frontier is held fixed in it. Axes: B resamples, P
problems, K statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from concise_rl.errors import UserError
from concise_rl.evaluation.intervals import Problems, ratios, resample
from concise_rl.evaluation.metrics import difficulty_levels
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.testbeds.beds import BEDS
from concise_rl.testbeds.frontier import PRICES, Frontier, Point, empirical

FLAGS = ("hard", "trap")
"""Columns that are true on a slice of the problems."""


def known_frontier(rows: Sequence[EvaluationRow]) -> Frontier | None:
    """The frontier of the bed that the rows' column `testbed` names; None where they name none."""
    names = {row.columns.get("testbed") for row in rows}
    if len(names) != 1 or (name := names.pop()) not in BEDS:
        return None
    return BEDS[name].frontier([row.prompt for row in rows])


def frontier_of(entries: Mapping[str, Sequence[EvaluationRow]]) -> tuple[Frontier, str]:
    """What entries on the same problems are held against, and its name: the bed's, else `best of the compared`.

    Raises:
        UserError: no entry.
    """
    if not entries:
        raise UserError("a frontier needs an entry: give one evaluation or more")
    known = known_frontier(next(iter(entries.values())))
    if known is not None:
        return known, "known"
    reached = [
        Point(float(np.mean([r.correct for r in rows])), float(np.mean([r.length for r in rows])), name)
        for name, rows in entries.items()
    ]
    return empirical(reached), "best of the compared"


def against_frontier(
    rows: Sequence[EvaluationRow], frontier: Frontier, prices: Sequence[float] = PRICES
) -> dict[str, Any]:
    """How far one evaluation lies from a frontier.

    Returns a dict, each number with `..._interval`, None where it is not defined:

    - `regret`: a dict from each price lambda, as text, to `regret` in points (hundredths of a right answer):
      100 * (best value - (accuracy - lambda * mean tokens)). What to rank by.
    - `below`: points of accuracy below the frontier at the same tokens; nobody's below the cheapest policy. It flatters
      a policy that has stopped thinking: there little is to be had.
    - `beyond`: tokens beyond what the frontier needs for the same accuracy; nobody's above its best accuracy.

    Raises:
        UserError: no rows, or a price that is negative.
    """
    if not rows or any(price < 0 for price in prices):
        raise UserError(f"prices={list(prices)}: need rows, and prices of 0 or more")
    problems = Problems.of(rows)
    right_P = problems.sums(np.array([row.correct for row in rows]))
    tokens_P = problems.sums(np.array([row.length for row in rows]))
    best_K = np.array([frontier.best(price).value(price) for price in prices])

    def statistic(weights_BP: np.ndarray) -> np.ndarray:
        counts_B = weights_BP @ problems.counts_P
        accuracy_B, mean_B = weights_BP @ right_P / counts_B, weights_BP @ tokens_P / counts_B
        regret_BK = 100 * (best_K - (accuracy_B[:, None] - mean_B[:, None] * np.array(prices)))
        below_B = [100 * (frontier.accuracy_at(t) - a) for a, t in zip(accuracy_B, mean_B, strict=True)]
        beyond_B = [t - frontier.tokens_at(a) for a, t in zip(accuracy_B, mean_B, strict=True)]
        return np.column_stack([regret_BK, below_B, beyond_B])

    values = statistic(np.ones((1, len(problems.ids))))[0].tolist()
    intervals = resample(len(problems.ids), statistic)
    found = [(v if np.isfinite(v) else None, i) for v, i in zip(values, intervals, strict=True)]
    regret = {
        f"{price:g}": {"regret": value, "regret_interval": interval}
        for price, (value, interval) in zip(prices, found, strict=False)
    }
    below, beyond = found[len(prices) :]
    return {
        "regret": regret,
        "below": below[0],
        "below_interval": below[1],
        "beyond": beyond[0],
        "beyond_interval": beyond[1],
    }


def slices(rows: Sequence[EvaluationRow]) -> dict[str, dict[str, Any]]:
    """Accuracy and mean tokens by level (`n=2`, ...), on the hard half and on the trap slice, where the data have them.

    A slice has `accuracy`, `mean_tokens`, their intervals, and `problems`.
    """
    chosen = {f"n={level}": [rows[place] for place in places] for level, places in difficulty_levels(rows).items()}
    chosen |= {flag: [row for row in rows if row.columns.get(flag) is True] for flag in FLAGS}
    found = {}
    for name, own in chosen.items():
        if own:
            problems = Problems.of(own)
            counts_P = problems.counts_P
            values, intervals = ratios(
                {
                    "accuracy": (problems.sums(np.array([row.correct for row in own])), counts_P),
                    "mean_tokens": (problems.sums(np.array([row.length for row in own])), counts_P),
                }
            )
            found[name] = values | {f"{k}_interval": v for k, v in intervals.items()} | {"problems": len(problems.ids)}
    return found


def behaviour(rows: Sequence[EvaluationRow]) -> dict[str, Any] | None:
    """What the completions do and how well, by the bed that the column `testbed` names (`testbeds.beds`); else None."""
    name = rows[0].columns.get("testbed") if rows else None
    return BEDS[name].behaviour([(row.prompt, row.completion) for row in rows]) if name in BEDS else None
