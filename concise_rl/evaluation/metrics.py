"""Rows of an evaluation to numbers, with 95 % intervals that respect that samples of one problem belong together.

Counting rules, everywhere below:

- Lengths are sampled tokens including EOS.
- An unscorable row (no verdict could be had) counts as wrong in every accuracy, and its share is given apart as
  `unscorable_frac`. Leaving such rows out would reward a model for answers that the verifier cannot read.
- A mean over rows weighs every sample alike. Intervals come from a bootstrap that draws whole problems, with all their
  samples, so that more samples of the same problems do not pass for more problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from concise_rl.errors import UserError

RESAMPLES = 2000
BOOTSTRAP_SEED = 0
COVERAGE = (2.5, 97.5)
"""Percentiles of the resampled statistic that bound the 95 % interval."""


class Row(Protocol):
    """What the metrics read of one completion."""

    @property
    def prompt_id(self) -> str: ...
    @property
    def correct(self) -> bool: ...
    @property
    def scorable(self) -> bool: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def tokens(self) -> int: ...
    @property
    def think_tokens(self) -> int: ...
    @property
    def columns(self) -> Any: ...


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """All numbers of one evaluation.

    Returns a dict with, for R rows of P problems:

    - `accuracy` in [0, 1], `accuracy_interval`; `mean_tokens`, `mean_tokens_interval`; `problems` P, `samples` R / P.
    - `median_tokens`, `p90_tokens`; `mean_think_tokens` and `mean_answer_tokens`, which with the closing tag make the
      mean; `mean_tokens_correct`, `mean_tokens_wrong` (None where there is no such row).
    - `truncated_frac`, `unscorable_frac`.
    - `oracle_ratio`: mean tokens over mean `oracle_tokens`, where every row has that column; else None.
    - `by_difficulty`: where every row has the column `difficulty`, a dict from its value (as text, in its own order) to
      `{accuracy, mean_tokens, oracle_ratio, problems}`; else empty.

    Raises:
        UserError: no rows.
    """
    if not rows:
        raise UserError("an evaluation without rows has no summary: give it one prompt or more")
    tokens = np.array([row.tokens for row in rows], dtype=np.float64)
    think = np.array([row.think_tokens for row in rows], dtype=np.float64)
    correct = _correct(rows)
    sums_PK, counts_P, ids = _by_problem(rows, np.stack([correct, tokens], axis=1))
    accuracy_interval, tokens_interval = _mean_intervals(sums_PK, counts_P)
    answers = np.array([row.tokens - row.think_tokens - _closed(row) for row in rows], dtype=np.float64)
    return {
        "accuracy": float(correct.mean()),
        "accuracy_interval": accuracy_interval,
        "mean_tokens": float(tokens.mean()),
        "mean_tokens_interval": tokens_interval,
        "median_tokens": float(np.median(tokens)),
        "p90_tokens": float(np.percentile(tokens, 90)),
        "mean_think_tokens": float(think.mean()),
        "mean_answer_tokens": float(answers.mean()),
        "mean_tokens_correct": _mean_or_none(tokens[correct > 0]),
        "mean_tokens_wrong": _mean_or_none(tokens[correct == 0]),
        "truncated_frac": float(np.mean([row.truncated for row in rows])),
        "unscorable_frac": float(np.mean([not row.scorable for row in rows])),
        "oracle_ratio": _oracle_ratio(rows),
        "problems": len(ids),
        "samples": len(rows) / len(ids),
        "by_difficulty": _by_difficulty(rows),
    }


def difference(before: Sequence[Row], after: Sequence[Row]) -> dict[str, Any]:
    """What changed between two evaluations of the same problems.

    `accuracy_points` is 100 * (accuracy after - before); `tokens_percent` is 100 * (mean tokens after / before - 1).
    Both get a paired bootstrap interval: each resample draws problems once and takes both sides of them.
    `mcnemar_p`, where each problem was sampled once on each side, is the exact two-sided McNemar test of equal accuracy
    on the b + c problems whose verdict changed: min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)]); else None.

    Raises:
        UserError: the sides hold different problems, or none.
    """
    before_PK, before_counts_P, before_ids = _sums(before)
    after_PK, after_counts_P, after_ids = _sums(after)
    if set(before_ids) != set(after_ids) or not before_ids:
        only_before, only_after = set(before_ids) - set(after_ids), set(after_ids) - set(before_ids)
        raise UserError(
            f"before and after must hold the same problems, one or more: {len(only_before)} of {len(before_ids)} are "
            f"only before and {len(only_after)} of {len(after_ids)} only after; evaluate both on one split and limit"
        )
    place = {prompt_id: p for p, prompt_id in enumerate(after_ids)}
    order = np.array([place[prompt_id] for prompt_id in before_ids])
    after_PK, after_counts_P = after_PK[order], after_counts_P[order]

    def change(weights_BP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        before_BK = (weights_BP @ before_PK) / (weights_BP @ before_counts_P)[:, None]
        after_BK = (weights_BP @ after_PK) / (weights_BP @ after_counts_P)[:, None]
        return 100 * (after_BK[:, 0] - before_BK[:, 0]), 100 * (after_BK[:, 1] / before_BK[:, 1] - 1)

    points, percent = change(np.ones((1, len(before_ids))))
    points_B, percent_B = change(_bootstrap_weights(len(before_ids)))
    once = bool((before_counts_P == 1).all() and (after_counts_P == 1).all())
    return {
        "accuracy_points": float(points[0]),
        "accuracy_points_interval": _interval(points_B),
        "tokens_percent": float(percent[0]),
        "tokens_percent_interval": _interval(percent_B),
        "mcnemar_p": mcnemar_p(before_PK[:, 0], after_PK[:, 0]) if once else None,
        "problems": len(before_ids),
    }


def mcnemar_p(before_P: np.ndarray, after_P: np.ndarray) -> float:
    """Exact two-sided McNemar test on paired verdicts, (P,) each of 0 or 1; 1 where none changed."""
    lost = int(((before_P == 1) & (after_P == 0)).sum())
    won = int(((before_P == 0) & (after_P == 1)).sum())
    changed = lost + won
    tail = sum(math.comb(changed, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**changed)


# --- bootstrap over problems ------------------------------------------------------------------------------------------


def _bootstrap_weights(problems: int) -> np.ndarray:
    """How often each of P problems is drawn in each resample, (RESAMPLES, P)."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    return generator.multinomial(problems, np.full(problems, 1 / problems), size=RESAMPLES).astype(np.float64)


def _interval(values_B: np.ndarray) -> list[float]:
    return [float(bound) for bound in np.percentile(values_B, COVERAGE)]


def _mean_intervals(sums_PK: np.ndarray, counts_P: np.ndarray) -> list[list[float]]:
    weights_BP = _bootstrap_weights(len(counts_P))
    means_BK = (weights_BP @ sums_PK) / (weights_BP @ counts_P)[:, None]
    return [_interval(means_BK[:, k]) for k in range(sums_PK.shape[1])]


def _by_problem(rows: Sequence[Row], values_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Sums (P, K) and counts (P,) of the rows of each problem, and the problems' ids."""
    ids = list(dict.fromkeys(row.prompt_id for row in rows))
    place = {prompt_id: p for p, prompt_id in enumerate(ids)}
    problem_R = np.array([place[row.prompt_id] for row in rows], dtype=np.int64)
    sums_PK = np.zeros((len(ids), values_RK.shape[1]))
    np.add.at(sums_PK, problem_R, values_RK)
    return sums_PK, np.bincount(problem_R, minlength=len(ids)).astype(np.float64), ids


def _sums(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    tokens = np.array([row.tokens for row in rows], dtype=np.float64)
    return _by_problem(rows, np.stack([_correct(rows), tokens], axis=1))


# --- single statistics ------------------------------------------------------------------------------------------------


def _correct(rows: Sequence[Row]) -> np.ndarray:
    return np.array([row.correct and row.scorable for row in rows], dtype=np.float64)


def _closed(row: Row) -> int:
    """1 where a closing think tag stands between the think and the answer tokens."""
    return int(row.think_tokens < row.tokens)


def _mean_or_none(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _oracle_ratio(rows: Sequence[Row]) -> float | None:
    oracle = [row.columns.get("oracle_tokens") for row in rows]
    if any(tokens is None for tokens in oracle) or sum(oracle) <= 0:
        return None
    return sum(row.tokens for row in rows) / sum(oracle)


def _by_difficulty(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    levels = {row.columns.get("difficulty") for row in rows}
    if None in levels:
        return {}
    ordered = sorted(levels, key=lambda level: (isinstance(level, str), level))
    table = {}
    for level in ordered:
        chosen = [row for row in rows if row.columns["difficulty"] == level]
        table[str(level)] = {
            "accuracy": float(_correct(chosen).mean()),
            "mean_tokens": float(np.mean([row.tokens for row in chosen])),
            "oracle_ratio": _oracle_ratio(chosen),
            "problems": len({row.prompt_id for row in chosen}),
        }
    return table
