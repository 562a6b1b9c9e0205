"""YapScore and YapIndex by hand."""

from __future__ import annotations

import numpy as np
import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation import EvaluationRow
from concise_rl.evaluation.yap import _weighted_medians, yap_score, yap_summary
from concise_rl.verifiers import Verdict


def row(problem: int, completion: str, reference: str = "four", sample: int = 0, **columns) -> EvaluationRow:
    return EvaluationRow(
        prompt_id=f"{problem:016x}",
        sample=sample,
        prompt="2+2?",
        reference=reference,
        completion=completion,
        length=len(completion),
        think_length=0,
        truncated=False,
        verdict=Verdict.of(True),
        columns=columns,
    )


@pytest.mark.parametrize(
    ("completion", "minimal", "score"),
    [
        ("four", "four", 0),
        ("  four\n", "four ", 0),
        ("It is four.", "four", 7),
        ("4", "four", 0),
        ("<think>two and two make four, I think</think>\n\nfour!", "four", 1),
        ("<think>two and", "four", 10),
        ("四です", "四", 2),
    ],
)
def test_the_score_counts_what_a_user_reads_beyond_the_minimal_answer(completion, minimal, score):
    assert yap_score(completion, minimal) == score


def test_the_index_is_the_mean_of_the_categories_medians():
    excess = {"a": [0, 10, 200], "b": [4, 8]}
    rows = [
        row(problem, "four" + "!" * n, category=category)
        for problem, (category, n) in enumerate((c, n) for c, scores in excess.items() for n in scores)
    ]
    found = yap_summary(rows)
    assert {name: (c["yap_score"], c["problems"]) for name, c in found["categories"].items()} == {
        "a": (10, 3),
        "b": (6, 2),
    }
    assert found["yap_index"] == 8
    low, high = found["yap_index_interval"]
    assert low < 8 < high
    assert found["categories"]["a"]["yap_score_interval"] == [0, 200]
    assert found["empty_frac"] == 0


def test_rows_without_a_category_are_one_and_silence_is_counted():
    found = yap_summary([row(0, "four!!"), row(0, "", sample=1), row(1, "<think>4</think> "), row(2, "four!!!!")])
    assert list(found["categories"]) == ["all"]
    assert found["yap_index"] == 1
    assert found["empty_frac"] == 0.5
    with pytest.raises(UserError, match="without rows"):
        yap_summary([])


def test_weighted_medians_are_those_of_the_repeated_values():
    generator = np.random.default_rng(0)
    values = generator.integers(0, 9, size=7).astype(float)
    weights = generator.integers(0, 4, size=(50, 7)).astype(float)
    weights[0] = 0
    expected = [np.median(np.repeat(values, w.astype(int))) if w.any() else np.nan for w in weights]
    np.testing.assert_array_equal(_weighted_medians(values, weights), expected)
