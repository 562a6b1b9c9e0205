"""Rows of an evaluation against the best that is possible: regret at prices of a token, distances, slices.

Every number has a 95 % interval of a bootstrap over problems; the frontier is held fixed in it. Axes: B resamples, P
problems, K statistics, C points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

KNOWN, COMPARED = "best possible", "best of the compared"
"""What a frontier is: the bed's own, or that of the entries at hand."""

SHARES = (0.03, 0.1, 0.3)
"""Where no frontier is known: prices at which the mean completion of all entries costs so much of a right answer."""

CURVE_POINTS = 200

Rows = Sequence[EvaluationRow]


@dataclass(frozen=True)
class Tradeoff:
    """Entries on the same problems, held against one frontier.

    Attributes:
        frontier: the best of accuracy against tokens.
        name: `KNOWN` or `COMPARED`: whose it is.
        prices: of a token, in units of one right answer.
        entries: name to `against` (`against_frontier`), `slices` and, on a bed, `behaviour`.
    """

    frontier: Frontier
    name: str
    prices: tuple[float, ...]
    entries: Mapping[str, Mapping[str, Any]]


def tradeoff(entries: Mapping[str, Rows], prices: Sequence[float] | None = None) -> Tradeoff:
    """All entries against the frontier that they share.

    Args:
        entries: name to rows, of the same problems.
        prices: of a token; by default `PRICES` where the frontier is known, else those of `SHARES`.

    Raises:
        UserError: no entry, an entry without rows, or a price below 0.
    """
    return against(entries, *frontier_of(entries), prices)


def against(
    entries: Mapping[str, Rows], frontier: Frontier, name: str, prices: Sequence[float] | None = None
) -> Tradeoff:
    """Entries held against a frontier; see `tradeoff`."""
    if not prices:
        mean = float(np.mean([row.length for rows in entries.values() for row in rows]))
        prices = PRICES if name == KNOWN else [float(f"{share / max(1.0, mean):.1g}") for share in SHARES]
    found = {
        entry: {
            "against": against_frontier(rows, frontier, prices),
            "slices": slices(rows),
            "behaviour": behaviour(rows),
        }
        for entry, rows in entries.items()
    }
    return Tradeoff(frontier, name, tuple(prices), found)


def known_tradeoff(entries: Mapping[str, Rows]) -> Tradeoff | None:
    """The same where the frontier is known; None where it is not, or there is no entry."""
    known = known_frontier(next(iter(entries.values()))) if entries else None
    return against(entries, known, KNOWN) if known is not None else None


def known_frontier(rows: Rows) -> Frontier | None:
    """The frontier of the bed that the rows' column `testbed` names, on their problems; None where they name none."""
    names = {row.columns.get("testbed") for row in rows}
    if len(names) != 1 or (name := names.pop()) not in BEDS:
        return None
    return BEDS[name].frontier([row.prompt for row in rows])


def frontier_of(entries: Mapping[str, Rows]) -> tuple[Frontier, str]:
    """What entries on the same problems are held against, and its name: the bed's, else that of the entries.

    Raises:
        UserError: no entry, or one without rows.
    """
    if not entries or not all(entries.values()):
        raise UserError("a frontier needs an entry: give one evaluation or more, each with a completion")
    known = known_frontier(next(iter(entries.values())))
    if known is not None:
        return known, KNOWN
    reached = [
        Point(float(np.mean([r.correct for r in rows])), float(np.mean([r.length for r in rows])), name)
        for name, rows in entries.items()
    ]
    return empirical(reached), COMPARED


def against_frontier(rows: Rows, frontier: Frontier, prices: Sequence[float] = PRICES) -> dict[str, Any]:
    """How far one evaluation lies from a frontier.

    Returns a dict, each number with `..._interval`, None where it is not defined:

    - `regret`: a dict from each price lambda, as text, to `regret` in points (hundredths of a right answer):
      100 * (best value - (accuracy - lambda * mean tokens)). What to rank by.
    - `below`: points of accuracy below the frontier at the same tokens; nobody's below the cheapest policy. It flatters
      a policy that has stopped thinking: there little is to be had.
    - `beyond`: tokens beyond what the frontier needs for the same accuracy; nobody's above its best accuracy.
    - `budget_gap`: mean points of accuracy below the frontier over token budgets from its cheapest corner to its
      dearest (`Frontier.gap`), where the policy keeps to a budget by being cut off (`budget_curve`). It needs no price.

    Raises:
        UserError: no rows, or a price that is negative.
    """
    if not rows or any(price < 0 for price in prices):
        raise UserError(f"prices={list(prices)}: need rows, and prices of 0 or more")
    problems = Problems.of(rows)
    right_PC, tokens_PC = _cut(rows, problems)
    best_K = np.array([frontier.best(price).value(price) for price in prices])
    corner_tokens, corner_accuracy = zip(*((p.tokens, p.accuracy) for p in frontier.mixtures), strict=True)

    def statistic(weights_BP: np.ndarray) -> np.ndarray:
        counts_B1 = (weights_BP @ problems.counts_P)[:, None]
        accuracy_BC, tokens_BC = weights_BP @ right_PC / counts_B1, weights_BP @ tokens_PC / counts_B1
        accuracy_B, mean_B = accuracy_BC[:, -1], tokens_BC[:, -1]
        regret_BK = 100 * (best_K - (accuracy_B[:, None] - mean_B[:, None] * np.array(prices)))
        # As `accuracy_at` and `tokens_at` have it, of all resamples at once.
        below_B = 100 * (np.interp(mean_B, corner_tokens, corner_accuracy, left=np.nan) - accuracy_B)
        beyond_B = mean_B - np.interp(accuracy_B, corner_accuracy, corner_tokens, right=np.nan)
        gap_B = [100 * frontier.gap(t, a) for a, t in zip(accuracy_BC, tokens_BC, strict=True)]
        return np.column_stack([regret_BK, below_B, beyond_B, gap_B])

    values = statistic(np.ones((1, len(problems.ids))))[0].tolist()
    intervals = resample(len(problems.ids), statistic)
    found = [(v if np.isfinite(v) else None, i) for v, i in zip(values, intervals, strict=True)]
    regret = {
        f"{price:g}": {"regret": value, "regret_interval": interval}
        for price, (value, interval) in zip(prices, found, strict=False)
    }
    against: dict[str, Any] = {"regret": regret}
    for name, (value, interval) in zip(("below", "beyond", "budget_gap"), found[len(prices) :], strict=True):
        against |= {name: value, f"{name}_interval": interval}
    return against


def budget_curve(rows: Rows) -> list[Point]:
    """What the policy reaches when it is cut off at b tokens: right if it is right and ended within b; rising b.

    Its tokens are those sampled up to the cut. The last point is the policy itself.
    """
    right_PC, tokens_PC = _cut(rows, Problems.of(rows))
    reached = right_PC.sum(0) / len(rows), tokens_PC.sum(0) / len(rows)
    return [Point(accuracy, tokens) for accuracy, tokens in zip(*(found.tolist() for found in reached), strict=True)]


def _cut(rows: Rows, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and tokens by problem where completions are cut at each length that there is, thinned: (P, C)."""
    lengths_R = np.array([row.length for row in rows])
    correct_R = np.array([row.correct for row in rows])
    # Only a length that there is lets an answer in; a cut between two of them costs tokens for nothing.
    cuts = np.unique(lengths_R)
    if len(cuts) > CURVE_POINTS:
        cuts = np.unique(np.quantile(cuts, np.linspace(0, 1, CURVE_POINTS), method="nearest"))
    right = [problems.sums(correct_R & (lengths_R <= cut)) for cut in cuts]
    tokens = [problems.sums(np.minimum(lengths_R, cut)) for cut in cuts]
    return np.stack(right, axis=1), np.stack(tokens, axis=1)


def slices(rows: Rows) -> dict[str, dict[str, Any]]:
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


def behaviour(rows: Rows) -> dict[str, Any] | None:
    """What the completions do and how well, by the bed that the column `testbed` names (`testbeds.beds`); else None."""
    name = rows[0].columns.get("testbed") if rows else None
    return BEDS[name].behaviour([(row.prompt, row.completion) for row in rows]) if name in BEDS else None
