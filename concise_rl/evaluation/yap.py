"""How much longer replies are than the least that answers, in characters: YapScore and YapIndex (arXiv 2601.00624)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from concise_rl.errors import UserError
from concise_rl.evaluation.intervals import Problems, resample
from concise_rl.evaluation.measures import THINK_END, reply
from concise_rl.evaluation.row import EvaluationRow

CATEGORY_COLUMN = "category"


def yap_score(completion: str, minimal: str, think_end: str = THINK_END) -> int:
    """`max(0, L - B)`: characters of the reply beyond those of the minimal sufficient answer, outer white space aside.

    The reply is what a user sees, the text after the last think-end tag; thinking that never ends counts as reply, so
    that nobody scores by saying nothing but thoughts. Characters are Unicode code points: no tokenizer is involved.
    """
    return max(0, len(reply(completion, think_end).strip()) - len(minimal.strip()))


def yap_summary(rows: Sequence[EvaluationRow], think_end: str = THINK_END) -> dict[str, Any]:
    """The median YapScore of each category, and their unweighted mean over the categories, the YapIndex.

        YapIndex = (1 / C) * sum over categories c of median over the rows of c of YapScore

    The minimal answer is a row's reference, its category the column `category` (all rows are one where they lack it).
    A reply that says nothing scores 0 as the perfect one does: `empty_frac` counts them.

    Returns:
        `yap_index`, in characters, and `categories`, a dict from category to `yap_score` and `problems`; each measure
        with its 95 % interval over resampled problems (`..._interval`), None where none can be had; `empty_frac`.

    Raises:
        UserError: no rows.
    """
    if not rows:
        raise UserError("an evaluation without rows has no YapScore: give it one prompt or more")
    problems = Problems.of(rows)
    score_R = np.array([yap_score(row.completion, row.reference, think_end) for row in rows], dtype=np.float64)
    category_R = np.array([str(row.columns.get(CATEGORY_COLUMN, "all")) for row in rows])
    categories = sorted(set(category_R.tolist()))
    members = [np.flatnonzero(category_R == category) for category in categories]

    def medians(weights_BP: np.ndarray) -> np.ndarray:
        """(B, C + 1): the categories' medians, then their mean."""
        weights_BR = weights_BP[:, problems.problem_R]
        median_BC = np.stack([_weighted_medians(score_R[own], weights_BR[:, own]) for own in members], axis=1)
        return np.concatenate([median_BC, median_BC.mean(axis=1, keepdims=True)], axis=1)

    *scores, index = medians(np.ones((1, len(problems.ids))))[0].tolist()
    *intervals, index_interval = resample(len(problems.ids), medians)
    return {
        "yap_index": index,
        "yap_index_interval": index_interval,
        "categories": {
            category: {
                "yap_score": score,
                "yap_score_interval": interval,
                "problems": len(set(problems.problem_R[own].tolist())),
            }
            for category, score, interval, own in zip(categories, scores, intervals, members, strict=True)
        },
        "empty_frac": float(np.mean([not reply(row.completion, think_end).strip() for row in rows])),
    }


def _weighted_medians(value_R: np.ndarray, weights_BR: np.ndarray) -> np.ndarray:
    """The median of the values, each taken as often as it weighs, (B,); nan where none is taken."""
    order_R = np.argsort(value_R, kind="stable")
    value_R, cumulative_BR = value_R[order_R], np.cumsum(weights_BR[:, order_R], axis=1)
    total_B1 = cumulative_BR[:, -1:]
    # The mean of the two middle values, which are one where the number taken is odd: ranks from 1, as counted.
    middle = [(cumulative_BR < rank_B1).sum(axis=1) for rank_B1 in ((total_B1 + 1) // 2, total_B1 // 2 + 1)]
    low_B, high_B = (value_R[np.minimum(place_B, len(value_R) - 1)] for place_B in middle)
    return np.where(total_B1[:, 0] == 0, np.nan, (low_B + high_B) / 2)
