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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from concise_rl.errors import UserError
from concise_rl.evaluation.row import EvaluationRow

RESAMPLES = 2000
BLOCKS = 20
"""The resamples are drawn in so many parts, which bounds the memory."""

MAX_LEVELS = 20
"""A column of more values than this is a measurement, not a level of difficulty."""

BOOTSTRAP_SEED = 0
COVERAGE = (2.5, 97.5)
"""Percentiles of the resampled statistic that bound the 95 % interval."""


def summarize(rows: Sequence[EvaluationRow]) -> dict[str, Any]:
    """All numbers of one evaluation.

    Returns a dict with, for R rows of P problems:

    - `accuracy` in [0, 1], `accuracy_interval`; `mean_tokens`, `mean_tokens_interval`; `problems` P, `samples` R / P.
    - `median_tokens`, `p90_tokens`; `mean_think_tokens` and `mean_answer_tokens`, which with the closing tag make the
      mean; `mean_tokens_correct`, `mean_tokens_wrong` (None where there is no such row).
    - `truncated_frac`, `unscorable_frac`.
    - `oracle_ratio`: mean tokens over mean `oracle_tokens`, where every row has that column; else None.
    - `by_difficulty`: where every row has the column `difficulty`, with no more than 20 values, a dict from its value
      (as text, in its own order) to accuracy and mean tokens with intervals, `oracle_ratio`, `problems`; else empty.

    Raises:
        UserError: no rows.
    """
    if not rows:
        raise UserError("an evaluation without rows has no summary: give it one prompt or more")
    tokens = np.array([row.length for row in rows], dtype=np.float64)
    correct = np.array([row.correct for row in rows])
    problems = _Problems.of(rows)
    accuracy_interval, tokens_interval = _resample(len(problems.ids), problems.means)
    return {
        "accuracy": float(correct.mean()),
        "accuracy_interval": accuracy_interval,
        "mean_tokens": float(tokens.mean()),
        "mean_tokens_interval": tokens_interval,
        "median_tokens": float(np.median(tokens)),
        "p90_tokens": float(np.percentile(tokens, 90)),
        "mean_think_tokens": float(np.mean([row.think_length for row in rows])),
        "mean_answer_tokens": float(np.mean([row.answer_length for row in rows])),
        "mean_tokens_correct": _mean_or_none(tokens[correct]),
        "mean_tokens_wrong": _mean_or_none(tokens[~correct]),
        "truncated_frac": float(np.mean([row.truncated for row in rows])),
        "unscorable_frac": float(np.mean([not row.verdict.scorable for row in rows])),
        "oracle_ratio": _oracle_ratio(rows),
        "problems": len(problems.ids),
        "samples": len(rows) / len(problems.ids),
        "by_difficulty": _by_difficulty(rows),
    }


def paired_difference(before: Sequence[EvaluationRow], after: Sequence[EvaluationRow]) -> dict[str, Any]:
    """What changed between two evaluations of the same problems.

    `accuracy_points` is 100 * (accuracy after - before); `tokens_percent` is 100 * (mean tokens after / before - 1).
    Both get a paired bootstrap interval: each resample draws problems once and takes both sides of them.
    `mcnemar_p`, where each problem was sampled once on each side, is the exact two-sided McNemar test of equal accuracy
    on the b + c problems whose verdict changed: min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)]); else None.

    Raises:
        UserError: the sides hold different problems, or none.
    """
    first, second = _Problems.of(before), _Problems.of(after)
    only_before, only_after = set(first.ids) - set(second.ids), set(second.ids) - set(first.ids)
    if only_before or only_after or not first.ids:
        raise UserError(
            f"before and after must hold the same problems, at least one: {len(only_before)} of {len(first.ids)} are "
            f"only before and {len(only_after)} of {len(second.ids)} only after; evaluate both on one split and limit"
        )
    second = second.in_order(first.ids)

    def change(weights_BP: np.ndarray) -> np.ndarray:
        (accuracy_0, tokens_0), (accuracy_1, tokens_1) = first.means(weights_BP).T, second.means(weights_BP).T
        return np.stack([100 * (accuracy_1 - accuracy_0), 100 * (tokens_1 / tokens_0 - 1)], axis=1)

    points, percent = change(np.ones((1, len(first.ids))))[0]
    points_interval, percent_interval = _resample(len(first.ids), change)
    once = bool((first.counts_P == 1).all() and (second.counts_P == 1).all())
    return {
        "accuracy_points": float(points),
        "accuracy_points_interval": points_interval,
        "tokens_percent": float(percent),
        "tokens_percent_interval": percent_interval,
        "mcnemar_p": mcnemar_p(first.sums_PK[:, 0], second.sums_PK[:, 0]) if once else None,
        "problems": len(first.ids),
    }


def mcnemar_p(before_P: np.ndarray, after_P: np.ndarray) -> float:
    """Exact two-sided McNemar test on paired verdicts, (P,) each of 0 or 1; 1 where none changed."""
    lost = int(((before_P == 1) & (after_P == 0)).sum())
    won = int(((before_P == 0) & (after_P == 1)).sum())
    changed = lost + won
    tail = sum(math.comb(changed, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**changed)


# --- bootstrap over problems ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Problems:
    """Rows added up by problem: K = 2 sums (right rows, tokens) and the number of rows of each of P problems."""

    ids: list[str]
    sums_PK: np.ndarray
    counts_P: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[EvaluationRow]) -> _Problems:
        place: dict[str, int] = {}
        problem_R = np.array([place.setdefault(row.prompt_id, len(place)) for row in rows], dtype=np.int64)
        values_RK = np.array([(row.correct, row.length) for row in rows], dtype=np.float64).reshape(-1, 2)
        sums_PK = np.zeros((len(place), 2))
        np.add.at(sums_PK, problem_R, values_RK)
        return cls(list(place), sums_PK, np.bincount(problem_R, minlength=len(place)))

    def in_order(self, ids: Sequence[str]) -> _Problems:
        place = {prompt_id: p for p, prompt_id in enumerate(self.ids)}
        order = [place[prompt_id] for prompt_id in ids]
        return _Problems(list(ids), self.sums_PK[order], self.counts_P[order])

    def means(self, weights_BP: np.ndarray) -> np.ndarray:
        """Accuracy and mean tokens over rows, with each problem taken as often as `weights_BP` says, (B, K)."""
        return (weights_BP @ self.sums_PK) / (weights_BP @ self.counts_P)[:, None]


def _resample(problems: int, statistic: Callable[[np.ndarray], np.ndarray]) -> list[list[float]]:
    """The 95 % percentile interval of each statistic, (B, P) weights to (B, K) values, over resampled problems."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    share = np.full(problems, 1 / problems)
    blocks = [
        statistic(generator.multinomial(problems, share, size=RESAMPLES // BLOCKS).astype(np.float64))
        for _ in range(BLOCKS)
    ]
    low_K, high_K = np.percentile(np.concatenate(blocks), COVERAGE, axis=0)
    return [[float(low), float(high)] for low, high in zip(low_K, high_K, strict=True)]


# --- single statistics ------------------------------------------------------------------------------------------------


def _mean_or_none(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _oracle_ratio(rows: Sequence[EvaluationRow]) -> float | None:
    oracle = [row.columns["oracle_tokens"] for row in rows if row.columns.get("oracle_tokens") is not None]
    if len(oracle) < len(rows) or sum(oracle) <= 0:
        return None
    return sum(row.length for row in rows) / sum(oracle)


def _by_difficulty(rows: Sequence[EvaluationRow]) -> dict[str, dict[str, Any]]:
    by_level: dict[Any, list[EvaluationRow]] = {}
    for row in rows:
        level = row.columns.get("difficulty")
        if not isinstance(level, str | int | float):
            return {}
        by_level.setdefault(level, []).append(row)
    if len(by_level) > MAX_LEVELS:
        return {}
    table = {}
    for level in sorted(by_level, key=lambda level: (isinstance(level, str), level)):
        chosen = by_level[level]
        problems = _Problems.of(chosen)
        accuracy_interval, tokens_interval = _resample(len(problems.ids), problems.means)
        table[str(level)] = {
            "accuracy": float(np.mean([row.correct for row in chosen])),
            "accuracy_interval": accuracy_interval,
            "mean_tokens": float(np.mean([row.length for row in chosen])),
            "mean_tokens_interval": tokens_interval,
            "oracle_ratio": _oracle_ratio(chosen),
            "problems": len(problems.ids),
        }
    return table
