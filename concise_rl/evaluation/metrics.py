"""Rows of an evaluation to numbers, with 95 % intervals that respect that samples of one problem belong together.

Counting rules, everywhere below:

- Lengths are sampled tokens including EOS.
- An unscorable row (no verdict could be had) counts as wrong in every accuracy, and its share is given apart as
  `unscorable_frac`. Leaving such rows out would reward a model for answers that the verifier cannot read.
- A mean over rows weighs every sample alike. Intervals come from a bootstrap that draws whole problems, with all their
  samples (`concise_rl.evaluation.intervals`). Where it has no width, as when all rows are right, a share gets Wilson's
  interval, and so does a difference of accuracies.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from concise_rl.errors import UserError
from concise_rl.evaluation.intervals import (
    NO_WIDTH,
    Problems,
    Ratio,
    divided,
    quantiles,
    ratios,
    resample,
    wilson,
)
from concise_rl.evaluation.measures import (
    accuracy_efficiency_score,
    answer_key,
    excess_length_reduction,
    hedges,
    length_spread,
    majority_at_k,
    pass_at_k,
    thinking_markers,
)
from concise_rl.evaluation.row import MAX_TOKENS, EvaluationRow

MAX_LEVELS = 20
"""A column of more values than this is a measurement, not a level of difficulty."""

LENGTH_BINS = 4


def summarize(rows: Sequence[EvaluationRow], think_end: str = "</think>") -> dict[str, Any]:
    """All numbers of one evaluation; docs/metrics.md says what each is.

    Returns a dict with, for R rows of P problems, each with `..._interval` ([low, high] at 95 %), and None where it is
    not defined:

    - `accuracy` in [0, 1]; with n samples a problem, `pass_at_k` and `majority_at_k` for k = 2, 4, ... up to n.
    - `mean_tokens`, `median_tokens`, `p90_tokens`; `mean_think_tokens` and `mean_answer_tokens`, which with the closing
      tag make the mean; `mean_tokens_correct`, `mean_tokens_wrong`; `tokens_cv`, the spread within a problem.
    - `truncated_frac`, `unscorable_frac`, `empty_frac`, `no_think_end_frac`, `several_think_ends_frac`.
    - `repetition_frac`, `hedges_per_100`, `thinking_markers_per_100`.
    - `oracle_ratio`: mean tokens over mean `oracle_tokens`, where every row has that column.

    And `problems` P, `samples` R / P; `accuracy_by_length`, see `by_length`; `by_difficulty`: where every row has the
    column `difficulty`, with no more than 20 values, a dict from its value (as text, in its own order) to accuracy,
    mean tokens and oracle ratio with intervals, and `problems`; else empty.

    Raises:
        UserError: no rows.
    """
    if not rows:
        raise UserError("an evaluation without rows has no summary: give it one prompt or more")
    problems = Problems.of(rows)
    statistics = (
        _answers(rows, problems) | _lengths(rows, problems) | _texts(rows, problems, think_end)
        | _several_samples(rows, problems, think_end)
    )  # fmt: skip
    values, intervals = ratios(statistics, _shares(statistics))
    tokens_R = np.array([row.length for row in rows])
    middle, middle_intervals = quantiles(tokens_R, problems, {"median_tokens": 0.5, "p90_tokens": 0.9})
    intervals = {f"{name}_interval": found for name, found in (intervals | middle_intervals).items()}
    return {
        **_DEFINED_SOMETIMES,
        **values,
        **middle,
        **intervals,
        "problems": len(problems.ids),
        "samples": len(rows) / len(problems.ids),
        "accuracy_by_length": by_length(rows),
        "by_difficulty": _by_difficulty(rows),
    }


_DEFINED_SOMETIMES = dict.fromkeys(
    ("oracle_ratio", "repetition_frac", "mean_think_tokens", "mean_answer_tokens", "tokens_cv")
)


def paired_difference(before: Sequence[EvaluationRow], after: Sequence[EvaluationRow]) -> dict[str, Any]:
    """What changed between two evaluations of the same problems.

    `accuracy_points` is 100 * (accuracy after - before); `tokens_percent` is 100 * (mean tokens after / before - 1);
    `log_tokens_percent` is 100 * (exp(mean log tokens after - mean log tokens before) - 1), the change of a typical
    completion, in which a few long ones do not outweigh the others; `aes` see `accuracy_efficiency_score`, None where
    nothing was right before. Each gets a paired bootstrap interval: a resample draws problems once and takes both
    sides of them. Where accuracy changed by as much in every problem, as when no verdict changed, all resamples agree;
    its interval then reaches as far to both sides as Wilson's does from 0 changes among so many problems.

    `mcnemar_p`, where each problem was sampled once on each side, is the exact two-sided McNemar test of equal accuracy
    on the b + c problems whose verdict changed: min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)]); else None.

    Raises:
        UserError: the sides hold different problems, or none.
    """
    first, second = _sides(before, after)

    def change(weights_BP: np.ndarray) -> np.ndarray:
        (accuracy_0, tokens_0, log_0), (accuracy_1, tokens_1, log_1) = first.means(weights_BP), second.means(weights_BP)
        columns = (
            100 * (accuracy_1 - accuracy_0),
            100 * (divided(tokens_1, tokens_0) - 1),
            100 * np.expm1(log_1 - log_0),
            accuracy_efficiency_score(accuracy_0, tokens_0, accuracy_1, tokens_1),
        )
        return np.stack(columns, axis=1)

    names = ("accuracy_points", "tokens_percent", "log_tokens_percent", "aes")
    once = bool((first.counts_P == 1).all() and (second.counts_P == 1).all())
    found = _with_intervals(names, change, len(first.counts_P))
    found["accuracy_points_interval"] = _with_width(found["accuracy_points_interval"], len(first.counts_P))
    return {
        **found,
        "mcnemar_p": mcnemar_p(first.sums_KP[0], second.sums_KP[0]) if once else None,
        "problems": len(first.counts_P),
    }


def _with_width(points: Sequence[float], problems: int) -> list[float]:
    """An interval of a difference of accuracies, in points, that allows for changes which no problem has shown."""
    low, high = points
    unseen = 100 * wilson(0.0, problems)[1]
    return [low, high] if high - low >= NO_WIDTH else [max(-100.0, low - unseen), min(100.0, high + unseen)]


def excess_length(
    start: Sequence[EvaluationRow], grpo: Sequence[EvaluationRow], method: Sequence[EvaluationRow]
) -> dict[str, Any]:
    """`elr` (see `excess_length_reduction`) of mean tokens with its interval, the three sides paired by problem.

    Raises:
        UserError: the sides hold different problems, or none.
    """
    zero, plain = _sides(start, grpo)
    _, ours = _sides(start, method)

    def statistic(weights_BP: np.ndarray) -> np.ndarray:
        tokens = [side.means(weights_BP)[1] for side in (ours, plain, zero)]
        return excess_length_reduction(*tokens)[:, None]

    return _with_intervals(("elr",), statistic, len(zero.counts_P))


def mcnemar_p(before_P: np.ndarray, after_P: np.ndarray) -> float:
    """Exact two-sided McNemar test on paired verdicts, (P,) each of 0 or 1; 1 where none changed."""
    lost = int(((before_P == 1) & (after_P == 0)).sum())
    won = int(((before_P == 0) & (after_P == 1)).sum())
    changed = lost + won
    tail = sum(math.comb(changed, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**changed)


def by_length(rows: Sequence[EvaluationRow]) -> list[dict[str, Any]]:
    """Accuracy of the short and of the long completions of equally difficult problems.

    Within each level of difficulty (all rows, where there are no levels) a row falls into one of four bins by the rank
    of its length, ties at their middle rank; each bin is then added up over the levels. Within a level, because over
    all problems the long completions are mostly those of hard problems.

    Returns:
        From short to long: `accuracy`, `mean_tokens` with intervals and `rows`; an empty bin is left out.
    """
    levels = difficulty_levels(rows) or {"": list(range(len(rows)))}
    lengths_R = np.array([row.length for row in rows])
    bin_R = np.zeros(len(rows), dtype=np.int64)
    for places in levels.values():
        own = np.sort(lengths_R[places])
        below, upto = (np.searchsorted(own, lengths_R[places], side=side) for side in ("left", "right"))
        bin_R[places] = np.minimum(LENGTH_BINS - 1, LENGTH_BINS * (below + upto) // (2 * len(own)))
    found = []
    for number in range(LENGTH_BINS):
        chosen = [row for row, own in zip(rows, bin_R.tolist(), strict=True) if own == number]
        if chosen:
            problems = Problems.of(chosen)
            values, intervals = ratios(_only(_answers(chosen, problems), "accuracy", "mean_tokens"), ["accuracy"])
            found.append(values | {f"{k}_interval": v for k, v in intervals.items()} | {"rows": len(chosen)})
    return found


def notices(rows: Sequence[EvaluationRow], think_end: str = "</think>") -> list[str]:
    """What is odd about the completions and how it was counted, a line each; empty where nothing is."""
    tags = [row.completion.count(think_end) for row in rows]
    ended = [count for row, count in zip(rows, tags, strict=True) if not row.truncated and row.completion]
    reasons = Counter(row.verdict.reason for row in rows if not row.verdict.scorable)
    counts = {
        "are empty: they count as wrong, at the tokens that they took": sum(not row.completion for row in rows),
        f"hold {think_end} more than once: thinking is counted up to the first, the answer read after the last": sum(
            count > 1 for count in tags
        ),
        f"ended without {think_end}: all their tokens count as thinking, all their text as the answer": sum(
            count == 0 for count in ended
        ),
        "have no think length: the server does not tell where thinking ends": sum(
            row.think_length is None for row in rows
        ),
        f"have no verdict and count as wrong, mostly because: {''.join(r for r, _ in reasons.most_common(1))}": sum(
            reasons.values()
        ),
    }
    return [f"{count} of {len(rows)} completions {text}" for text, count in counts.items() if count]


def _shares(statistics: Mapping[str, Ratio]) -> list[str]:
    """The names of those that count rows which have a property, over all rows."""
    prefixes, suffix = ("accuracy", "pass_at_", "majority_at_"), "_frac"
    return [
        name
        for name in statistics
        if name.startswith(prefixes) or (name.endswith(suffix) and name != "repetition_frac")
    ]


# --- statistics of an evaluation, each as numerator and denominator a problem -----------------------------------------


def _answers(rows: Sequence[EvaluationRow], problems: Problems) -> dict[str, Ratio]:
    tokens_R, correct_R = np.array([row.length for row in rows]), np.array([row.correct for row in rows])
    counts_P, tokens_P = problems.counts_P, problems.sums(tokens_R)
    statistics = {
        "accuracy": (problems.sums(correct_R), counts_P),
        "mean_tokens": (tokens_P, counts_P),
        "mean_tokens_correct": (problems.sums(tokens_R * correct_R), problems.sums(correct_R)),
        "mean_tokens_wrong": (problems.sums(tokens_R * ~correct_R), problems.sums(~correct_R)),
        "unscorable_frac": (problems.sums(np.array([not row.verdict.scorable for row in rows])), counts_P),
    }
    oracle = [row.columns.get("oracle_tokens") for row in rows]
    if all(isinstance(tokens, int | float) and 0 < tokens <= MAX_TOKENS for tokens in oracle):
        statistics["oracle_ratio"] = (tokens_P, problems.sums(np.array(oracle, dtype=np.float64)))
    return statistics


def _lengths(rows: Sequence[EvaluationRow], problems: Problems) -> dict[str, Ratio]:
    counts_P = problems.counts_P
    statistics = {"truncated_frac": (problems.sums(np.array([row.truncated for row in rows])), counts_P)}
    columns: dict[str, list[Any]] = {
        "mean_think_tokens": [row.think_length for row in rows],
        "mean_answer_tokens": [row.answer_length for row in rows],
        "repetition_frac": [row.repetition for row in rows],
    }
    for name, values in columns.items():
        if all(value is not None for value in values):
            statistics[name] = (problems.sums(np.array(values)), counts_P)
    return statistics


def _texts(rows: Sequence[EvaluationRow], problems: Problems, think_end: str) -> dict[str, Ratio]:
    counts_P = problems.counts_P
    tokens_P = problems.sums(np.array([row.length for row in rows]))
    tags_R = np.array([row.completion.count(think_end) for row in rows])
    hedges_R = np.array([hedges(row.completion) for row in rows])
    markers_R = np.array([thinking_markers(row.completion) for row in rows])
    return {
        "empty_frac": (problems.sums(np.array([not row.completion for row in rows])), counts_P),
        "no_think_end_frac": (problems.sums(tags_R == 0), counts_P),
        "several_think_ends_frac": (problems.sums(tags_R > 1), counts_P),
        "hedges_per_100": (100 * problems.sums(hedges_R), tokens_P),
        "thinking_markers_per_100": (100 * problems.sums(markers_R), tokens_P),
    }


def _several_samples(rows: Sequence[EvaluationRow], problems: Problems, think_end: str) -> dict[str, Ratio]:
    by_problem: dict[str, list[EvaluationRow]] = {prompt_id: [] for prompt_id in problems.ids}
    for row in rows:
        by_problem[row.prompt_id].append(row)
    samples = min(map(len, by_problem.values()))
    if samples < 2:
        return {}
    one_P = np.ones(len(by_problem))
    spread = length_spread(rows)
    statistics = {"tokens_cv": (np.array([spread[prompt_id]["cv"] for prompt_id in by_problem]), one_P)}
    correct = [[row.correct for row in own] for own in by_problem.values()]
    answers = [
        ["" if row.correct else answer_key(row.completion, think_end) for row in own] for own in by_problem.values()
    ]
    for k in sample_counts(samples):
        statistics[f"pass_at_{k}"] = (np.array([pass_at_k(len(own), sum(own), k) for own in correct]), one_P)
        if k > 2:  # of two votes the majority is the accuracy
            voted = [majority_at_k(said, own, k) for said, own in zip(answers, correct, strict=True)]
            statistics[f"majority_at_{k}"] = (np.array(voted), one_P)
    return statistics


def sample_counts(samples: int) -> list[int]:
    """2, 4, 8, ... below the number of samples, and that number."""
    return sorted({2**i for i in range(1, samples.bit_length()) if 2**i <= samples} | {samples})


def difficulty_levels(rows: Sequence[EvaluationRow]) -> dict[str, list[int]]:
    """Places of the rows of each level of the column `difficulty`, in the levels' own order; empty where none."""
    by_level: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        level = row.columns.get("difficulty")
        if not isinstance(level, str | int | float):
            return {}
        by_level.setdefault(level, []).append(place)
    if len(by_level) > MAX_LEVELS:
        return {}
    ordered = sorted(by_level, key=lambda level: (isinstance(level, str), level))
    return {str(level): by_level[level] for level in ordered}


def _by_difficulty(rows: Sequence[EvaluationRow]) -> dict[str, dict[str, Any]]:
    table = {}
    for level, places in difficulty_levels(rows).items():
        chosen = [rows[place] for place in places]
        problems = Problems.of(chosen)
        statistics = _only(_answers(chosen, problems), "accuracy", "mean_tokens", "oracle_ratio")
        values, intervals = ratios(statistics, ["accuracy"])
        named = {f"{name}_interval": found for name, found in intervals.items()}
        table[level] = {"oracle_ratio": None} | values | named | {"problems": len(problems.ids)}
    return table


def _only(statistics: dict[str, Ratio], *names: str) -> dict[str, Ratio]:
    return {name: statistics[name] for name in names if name in statistics}


# --- pairs of evaluations ---------------------------------------------------------------------------------------------


class _Side:
    """One evaluation added up by problem: right rows, tokens and log tokens, K = 3."""

    def __init__(self, rows: Sequence[EvaluationRow], ids: Sequence[str] = ()) -> None:
        problems = Problems.of(rows, ids)
        tokens_R = np.array([row.length for row in rows])
        columns = (np.array([row.correct for row in rows]), tokens_R, np.log(np.maximum(tokens_R, 1)))
        self.ids, self.counts_P = problems.ids, problems.counts_P
        self.sums_KP = np.stack([problems.sums(column) for column in columns])

    def means(self, weights_BP: np.ndarray) -> np.ndarray:
        """Means over rows, with each problem taken as often as `weights_BP` says, (K, B)."""
        return (weights_BP @ self.sums_KP.T / (weights_BP @ self.counts_P)[:, None]).T


def _sides(before: Sequence[EvaluationRow], after: Sequence[EvaluationRow]) -> tuple[_Side, _Side]:
    ids_before = dict.fromkeys(row.prompt_id for row in before)
    ids_after = dict.fromkeys(row.prompt_id for row in after)
    only_before, only_after = ids_before.keys() - ids_after.keys(), ids_after.keys() - ids_before.keys()
    if only_before or only_after or not ids_before:
        raise UserError(
            f"before and after must hold the same problems, at least one: {len(only_before)} of {len(ids_before)} are "
            f"only before and {len(only_after)} of {len(ids_after)} only after; evaluate both on one split and limit"
        )
    return _Side(before), _Side(after, list(ids_before))


def _with_intervals(names: Sequence[str], statistic: Any, problems: int) -> dict[str, Any]:
    values = statistic(np.ones((1, problems)))[0].tolist()
    intervals = resample(problems, statistic)
    named = zip(names, values, intervals, strict=True)
    result: dict[str, Any] = {}
    for name, value, interval in named:
        result |= {name: value if math.isfinite(value) else None, f"{name}_interval": interval}
    return result
