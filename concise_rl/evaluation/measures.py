"""Measures of the literature, each with its formula and source; `metrics` puts them together with intervals."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from concise_rl.errors import UserError
from concise_rl.evaluation.intervals import Problems, ratios
from concise_rl.evaluation.row import EvaluationRow

THINK_END = "</think>"

HEDGES = (
    "perhaps", "maybe", "might", "possibly", "probably", "likely", "seems", "seem", "appears", "presumably", "i think",
    "i guess", "i believe", "not sure", "unsure", "could be",
)  # fmt: skip
"""Words that leave open whether what is said holds."""

THINKING_MARKERS = (
    "wait", "hmm", "hold on", "let me check", "let me verify", "let me think", "let me see", "let me reconsider",
    "let me try", "double-check", "double check", "recheck", "re-check", "on second thought", "alternatively",
    "actually",
)  # fmt: skip
"""Words with which a chain of thought turns back on itself."""


# --- several samples of a problem -------------------------------------------------------------------------------------


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that k of n samples, drawn without replacement, hold a right one: 1 - C(n - c, k) / C(n, k).

    Unbiased for the chance that k fresh samples hold one (arXiv 2107.03374 section 2.1).

    Raises:
        UserError: k is below 1 or above n.
    """
    if not 1 <= k <= n:
        raise UserError(f"k={k}: pass@k of {n} samples needs 1 <= k <= {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority_at_k(answers: Sequence[Hashable], correct: Sequence[bool], k: int) -> float:
    """The chance that the most frequent of k answers is right (self-consistency, arXiv 2203.11171 section 2).

    The mean over the n // k blocks of k samples that follow each other; where answers tie, the chance that one of them,
    drawn at random, is right. Right answers count as one answer, however they are written.

    Raises:
        UserError: k is below 1 or above the number of answers.
    """
    if not 1 <= k <= len(answers):
        raise UserError(f"k={k}: a majority of {len(answers)} samples needs 1 <= k <= {len(answers)}")
    shares = []
    for start in range(0, len(answers) - k + 1, k):
        block = range(start, start + k)
        votes = Counter((True, None) if correct[i] else (False, answers[i]) for i in block)
        most = max(votes.values())
        tied = [right for (right, _), count in votes.items() if count == most]
        shares.append(sum(tied) / len(tied))
    return sum(shares) / len(shares)


_BOXED = "\\boxed{"
_NUMBER = re.compile(r"-?(?:\d[\d,]*\.?\d*|\.\d+)")


def reply(completion: str, think_end: str = THINK_END) -> str:
    """What a user sees: the text after the last think-end tag; all of it where there is none."""
    return completion.rpartition(think_end)[2]


def answer_key(completion: str, think_end: str = THINK_END) -> str:
    """What a wrong completion answers, to tell votes apart: its last box, else its last number (after `####`, if any).

    Where there is none, all that follows the last think-end tag, in lower case, spaces as one.
    """
    answer = reply(completion, think_end)
    start = answer.rfind(_BOXED)
    if start >= 0:
        inside = answer[start + len(_BOXED) :]
        depth = 1
        for place, character in enumerate(inside):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                return "".join(inside[:place].split())
    answer = answer.rpartition("####")[2]
    numbers = _NUMBER.findall(answer)
    return numbers[-1].replace(",", "").rstrip(".") if numbers else " ".join(answer.lower().split())


def length_spread(rows: Sequence[EvaluationRow]) -> dict[str, dict[str, float]]:
    """How the lengths of one prompt's completions spread: CASTILLO's summary (arXiv 2505.16881).

    Returns:
        prompt id to `mean`, `std` (ddof 1; nan for one sample), `cv` = std / mean, `min`, `p25`, `p50`, `p75`, `p99`,
        `max`, in tokens.
    """
    lengths: dict[str, list[int]] = {}
    for row in rows:
        lengths.setdefault(row.prompt_id, []).append(row.length)
    spread = {}
    for prompt_id, values in lengths.items():
        mean = float(np.mean(values))
        std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        p25, p50, p75, p99 = np.percentile(values, [25, 50, 75, 99]).tolist()
        spread[prompt_id] = {
            "mean": mean, "std": std, "cv": std / mean if mean else math.nan, "min": float(min(values)),
            "p25": p25, "p50": p50, "p75": p75, "p99": p99, "max": float(max(values)),
        }  # fmt: skip
    return spread


# --- texts ------------------------------------------------------------------------------------------------------------


def _pattern(phrases: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(phrases, key=len, reverse=True)
    # No word boundary at a digit: character-level models write `11;wait,4+9`.
    return re.compile(rf"(?<![^\W\d])(?:{'|'.join(map(re.escape, longest_first))})(?![^\W\d])", re.IGNORECASE)


_HEDGES, _THINKING_MARKERS = _pattern(HEDGES), _pattern(THINKING_MARKERS)


def hedges(text: str) -> int:
    """Occurrences of `HEDGES`. The measure is of arXiv 2504.14047; the list of words is this project's."""
    return sum(1 for _ in _HEDGES.finditer(text))


def thinking_markers(text: str) -> int:
    """Occurrences of `THINKING_MARKERS`, likewise."""
    return sum(1 for _ in _THINKING_MARKERS.finditer(text))


# --- against a baseline -----------------------------------------------------------------------------------------------


def accuracy_efficiency_score(
    accuracy_before: Any, tokens_before: Any, accuracy_after: Any, tokens_after: Any,
    *, alpha: float = 1.0, beta: float = 3.0, gamma: float = 5.0,
) -> Any:  # fmt: skip
    """AES, one number for saving and accuracy (O1-Pruner, arXiv 2501.12570, metrics of its experiments).

    With l = 1 - tokens_after / tokens_before and a = accuracy_after / accuracy_before - 1: alpha l + beta |a| where
    a >= 0, alpha l - gamma |a| where a < 0. Elementwise; nan where a side before is 0.
    """
    before = np.asarray(accuracy_before, dtype=np.float64), np.asarray(tokens_before, dtype=np.float64)
    gain = _share(np.asarray(accuracy_after) - before[0], before[0])
    saving = _share(before[1] - np.asarray(tokens_after), before[1])
    return alpha * saving + np.where(gain >= 0, beta, gamma) * gain


def excess_length_reduction(tokens: Any, grpo_tokens: Any, start_tokens: Any) -> Any:
    """ELR: how much of the length that GRPO added to the start, a method takes back (GFPO, arXiv 2508.09726 eq. 4).

    (grpo_tokens - tokens) / (grpo_tokens - start_tokens): 0 as long as GRPO's, 1 as short as the start. It is meant for
    a GRPO that lengthens; nan where GRPO changed nothing. Elementwise.
    """
    grpo = np.asarray(grpo_tokens, dtype=np.float64)
    return _share(grpo - np.asarray(tokens), grpo - np.asarray(start_tokens))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole == 0, np.nan, part / np.where(whole == 0, 1.0, whole))


# --- over budgets -----------------------------------------------------------------------------------------------------


def arise(accuracies: Sequence[float], tokens: Sequence[float]) -> float:
    """ARISE of one problem over rising budgets (arXiv 2510.06014).

    sum over steps of da * (t_before / t_after)**sign(da), with da the change of accuracy: a gain counts less the more
    tokens it took, a loss counts more the more tokens were wasted on it. Steps without a change, or with no tokens on a
    side, count nothing; not bounded from below.

    Raises:
        UserError: as many accuracies as token counts are needed.
    """
    if len(accuracies) != len(tokens):
        raise UserError(
            f"{len(accuracies)} accuracies and {len(tokens)} token counts: ARISE needs one of each a budget"
        )
    score = 0.0
    for j in range(1, len(accuracies)):
        change = accuracies[j] - accuracies[j - 1]
        if change and tokens[j - 1] > 0 and tokens[j] > 0:
            score += change * (tokens[j - 1] / tokens[j]) ** math.copysign(1, change)
    return score


def area_under_budget_curve(budgets: Sequence[float], accuracies: Sequence[float]) -> float | None:
    """Mean accuracy over budgets that are spread evenly in log scale, in [0, 1]; None for fewer than two budgets.

    The trapezoids under accuracy against log budget, over log(last / first): each doubling of the budget weighs alike.
    The definition is this project's; it depends on the first and last budget, so compare curves of the same budgets.
    """
    weights = budget_weights(budgets)
    return None if weights is None else float(np.dot(weights, accuracies))


def budget_weights(budgets: Sequence[float]) -> np.ndarray | None:
    """The weight of each budget in the area under the curve; they sum to 1."""
    if len(budgets) < 2:
        return None
    gaps = np.diff(np.log(np.asarray(budgets, dtype=np.float64)))
    if (gaps <= 0).any():
        raise UserError(f"budgets={list(budgets)}: give them rising, each once")
    return (np.append(gaps, 0) + np.insert(gaps, 0, 0)) / (2 * gaps.sum())


def curve_summary(budgets: Sequence[int], rows_at: Sequence[Sequence[EvaluationRow]]) -> dict[str, Any]:
    """Accuracy against budget, with intervals over problems.

    Returns:
        `points`: a dict a budget with `budget`, `accuracy`, `mean_tokens` and their intervals; `budget_area` (see
        `area_under_budget_curve`) and `arise` (the mean over problems of `arise`, of a problem's mean accuracy and
        tokens), None for one budget, with their intervals; `problems`.

    Raises:
        UserError: the budgets do not hold the same problems, or there are no rows.
    """
    problems = [Problems.of(rows, ids=[row.prompt_id for row in rows_at[0]]) for rows in rows_at]
    ids = set(problems[0].ids)
    if not ids or any(set(found.ids) != ids or not found.counts_P.all() for found in problems):
        raise UserError("a budget curve needs the same problems at each budget, one or more")
    correct = [found.sums(np.array([r.correct for r in rows])) for found, rows in zip(problems, rows_at, strict=True)]
    tokens = [found.sums(np.array([r.length for r in rows])) for found, rows in zip(problems, rows_at, strict=True)]
    counts = [found.counts_P for found in problems]
    points = []
    for budget, correct_P, tokens_P, counts_P in zip(budgets, correct, tokens, counts, strict=True):
        statistics = {"accuracy": (correct_P, counts_P), "mean_tokens": (tokens_P, counts_P)}
        values, intervals = ratios(statistics, ["accuracy"])
        points.append({"budget": budget, **values, **{f"{name}_interval": found for name, found in intervals.items()}})
    summary: dict[str, Any] = {"points": points, "problems": len(ids), "budget_area": None, "arise": None}
    weights = budget_weights(budgets)
    if weights is not None:
        accuracy_BP = np.stack(correct) / np.stack(counts)
        tokens_BP = np.stack(tokens) / np.stack(counts)
        arise_P = np.array([arise(a, t) for a, t in zip(accuracy_BP.T.tolist(), tokens_BP.T.tolist(), strict=True)])
        one_P = np.ones(len(ids))
        values, intervals = ratios({"budget_area": (weights @ accuracy_BP, one_P), "arise": (arise_P, one_P)})
        summary |= {**values, **{f"{name}_interval": found for name, found in intervals.items()}}
    return summary
