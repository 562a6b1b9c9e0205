"""Measures of the literature against worked values, enumeration and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation import BudgetCurve, Evaluation, EvaluationRow, notices, paired_difference, summarize
from concise_rl.evaluation.intervals import Problems, quantiles
from concise_rl.evaluation.measures import (
    accuracy_efficiency_score,
    answer_key,
    area_under_budget_curve,
    arise,
    excess_length_reduction,
    hedges,
    length_spread,
    majority_at_k,
    pass_at_k,
    thinking_markers,
)
from concise_rl.evaluation.metrics import by_length, excess_length, sample_counts
from concise_rl.evaluation.yap import yap_score, yap_summary
from concise_rl.reporting.summary import length_rows
from concise_rl.verifiers import Verdict

from .test_metrics import random_rows, row


@pytest.mark.parametrize(("n", "c"), [(5, 2), (6, 0), (6, 6), (7, 1)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, c):
    right = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(right, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(UserError, match=f"k={n + 1}"):
        pass_at_k(n, c, n + 1)


def test_majority_at_k_worked():
    answers, right = ["", "7", "7", "", "8", "8"], [True, False, False, True, False, False]
    assert majority_at_k(answers, right, 6) == pytest.approx(1 / 3), "three answers with two votes each"
    assert majority_at_k(answers, right, 3) == 0.0, "7 wins the first block, 8 the second"
    assert majority_at_k(answers, right, 1) == pytest.approx(1 / 3)
    assert majority_at_k(answers, right, 4) == 0.5, "only the first block is whole"
    with pytest.raises(UserError, match="k=7"):
        majority_at_k(answers, right, 7)


@pytest.mark.parametrize(
    ("completion", "key"),
    [
        (r"<think>3</think>It is \boxed{\frac{1} {2}} or so 9", r"\frac{1}{2}"),
        ("1 + 2 is 3,000.", "3000"),
        ("work 5 #### 42\n", "42"),
        ("</think>  Choice   B ", "choice b"),
        (r"\boxed{never closed 12", "12"),
        ("", ""),
    ],
)
def test_answer_keys(completion, key):
    assert answer_key(completion) == key


def test_several_samples_in_a_summary():
    rows = [
        row("a", 10, True, sample=0), row("a", 20, False, sample=1), row("a", 30, False, sample=2),
        row("b", 10, True, sample=0), row("b", 10, True, sample=1), row("b", 10, False, sample=2),
    ]  # fmt: skip
    found = summarize(rows)
    assert found["pass_at_2"] == pytest.approx(((1 - 1 / 3) + 1) / 2)
    assert found["pass_at_3"] == 1
    assert found["pass_at_3_interval"] == pytest.approx([0.342, 1], abs=5e-4), "Wilson, 2 of 2 problems"
    assert found["majority_at_3"] == 0.5, "the two wrong ones of a say the same"
    assert found["tokens_cv"] == pytest.approx(10 / 20 / 2)
    assert sample_counts(6) == [2, 4, 6]
    assert "pass_at_2" not in summarize(rows[:4]), "a problem has one sample only"


def test_spread_against_numpy():
    lengths = np.random.default_rng(0).integers(5, 200, 10)
    found = length_spread([row("a", int(n), True, sample=k) for k, n in enumerate(lengths)] + [row("b", 3, True)])
    assert found["a"]["std"] == pytest.approx(lengths.std(ddof=1))
    assert found["a"]["cv"] == pytest.approx(lengths.std(ddof=1) / lengths.mean())
    assert [found["a"][name] for name in ("min", "p25", "p50", "p75", "p99", "max")] == pytest.approx(
        np.percentile(lengths, [0, 25, 50, 75, 99, 100]).tolist()
    )
    assert math.isnan(found["b"]["std"])


def test_markers_are_words():
    text = "Wait, await 4;wait,5. Perhaps it might be right; mighty. Hmm... let me double-check. ACTUALLY: not sure"
    assert thinking_markers(text) == 5
    assert hedges(text) == 3
    rows = [row("a", 50, True), row("b", 150, True)]
    assert summarize(rows)["thinking_markers_per_100"] == 0


def test_aes_worked():
    aes = accuracy_efficiency_score
    assert aes(0.6, 1000, 0.63, 600) == pytest.approx(0.4 + 3 * 0.05)
    assert aes(0.6, 1000, 0.57, 600) == pytest.approx(0.4 - 5 * 0.05)
    assert aes(0.6, 1000, 0.6, 1100) == pytest.approx(-0.1)
    assert aes(0.5, 100, 0.25, 50, alpha=2, beta=7, gamma=10) == pytest.approx(2 * 0.5 - 10 * 0.5)
    assert np.isnan(aes(0.0, 100, 0.5, 50))


@pytest.mark.parametrize(
    ("method", "grpo", "start", "published"),
    [(12.6, 14.8, 10.9, 0.544), (12.0, 14.8, 10.9, 0.709), (10.6, 13.3, 10.1, 0.846), (7.5, 10.7, 6.6, 0.797)],
)
def test_elr_of_the_paper(method, grpo, start, published):
    """Table 1 of arXiv 2508.09726, whose lengths are rounded to 100 tokens: that moves the ratio by up to 0.04."""
    assert excess_length_reduction(method, grpo, start) == pytest.approx(published, abs=0.04)


def test_elr_of_evaluations():
    start, grpo = random_rows(40, 1, seed=1), random_rows(40, 1, seed=1)
    grpo = [row(r.prompt_id, 2 * r.length, r.correct) for r in start]
    method = [row(r.prompt_id, int(1.5 * r.length), r.correct) for r in start]
    found = excess_length(start, grpo, method)
    assert found["elr"] == pytest.approx(0.5, abs=0.02)
    low, high = found["elr_interval"]
    assert low <= found["elr"] <= high
    assert excess_length(start, start, method)["elr"] is None, "GRPO changed nothing"


def test_arise_worked():
    assert arise([0, 1], [100, 125]) == pytest.approx(0.8)
    assert arise([1, 0], [100, 1000]) == pytest.approx(-10)
    assert arise([0, 1], [200, 100]) == pytest.approx(2)
    assert arise([0, 0.5, 0.5, 0.25], [100, 200, 300, 600]) == pytest.approx(0.5 * 0.5 - 0.25 * 2)
    assert arise([1], [100]) == 0
    assert arise([0, 1], [0, 100]) == 0
    with pytest.raises(UserError, match="ARISE"):
        arise([0, 1], [1])


def test_area_worked():
    assert area_under_budget_curve([128, 256, 512, 1024], [0.0, 0.5, 0.5, 1.0]) == pytest.approx(
        (0.25 + 0.5 + 0.75) / 3
    )
    assert area_under_budget_curve([10, 1000, 2000], [0.7] * 3) == pytest.approx(0.7)
    assert area_under_budget_curve([100, 400, 800], [0, 1, 1]) == pytest.approx((2 * 0.5 + 1) / 3), "doublings weigh"
    assert area_under_budget_curve([100], [1.0]) is None
    with pytest.raises(UserError, match="rising"):
        area_under_budget_curve([100, 100], [0, 1])


def test_curve_of_budgets():
    at = {
        100: [row("a", 100, False), row("b", 90, True)],
        200: [row("b", 90, True), row("a", 200, True)],
        400: [row("a", 300, True), row("b", 180, False)],
    }
    curve = BudgetCurve("truncated", tuple(at), tuple(map(Evaluation, at.values())))
    found = curve.summary()
    assert [point["accuracy"] for point in found["points"]] == [0.5, 1.0, 0.5]
    assert [point["mean_tokens"] for point in found["points"]] == [95, 145, 240]
    assert found["budget_area"] == pytest.approx(0.75)
    assert found["arise"] == pytest.approx((1 * 100 / 200 - 1 * 180 / 90) / 2)
    low, high = found["arise_interval"]
    assert (low, high) == (-2, 0.5), "two problems: a resample may hold either alone"
    twice = {
        budget: [*rows, *(row(r.prompt_id, r.length, r.correct, sample=1) for r in rows)] for budget, rows in at.items()
    }
    assert BudgetCurve("truncated", tuple(at), tuple(map(Evaluation, twice.values()))).summary() == found
    short = BudgetCurve("truncated", (100, 200), (Evaluation(at[100]), Evaluation(at[200][:1])))
    with pytest.raises(UserError, match="same problems at each budget"):
        short.summary()


def test_quantiles_with_one_sample_a_problem_agree_with_scipy():
    from scipy.stats import bootstrap

    rows = random_rows(150, 1, seed=0)
    lengths = np.array([float(r.length) for r in rows])
    values, intervals = quantiles(lengths, Problems.of(rows), {"median": 0.5, "p90": 0.9})
    for name, percent in (("median", 50), ("p90", 90)):
        assert values[name] == pytest.approx(np.percentile(lengths, percent))
        theirs = bootstrap(
            (lengths,), lambda x, axis, q=percent: np.percentile(x, q, axis=axis), method="percentile",
            n_resamples=8000, rng=np.random.default_rng(1),
        )  # fmt: skip
        assert intervals[name] == pytest.approx(list(theirs.confidence_interval), abs=0.6 * theirs.standard_error)


def test_log_tokens_and_aes_against_a_paired_bootstrap_of_scipy():
    from scipy.stats import bootstrap

    before, after = random_rows(120, 1, seed=5), random_rows(120, 1, seed=6)
    after = [row(r.prompt_id, max(1, r.length // 2), r.correct) for r in after]
    found = paired_difference(before, after)

    def log_change(x, y, axis):
        return 100 * np.expm1((np.log(y) - np.log(x)).mean(axis=axis))

    lengths = [np.array([float(r.length) for r in rows]) for rows in (before, after)]
    rng = np.random.default_rng(1)
    theirs = bootstrap(lengths, log_change, paired=True, method="percentile", n_resamples=8000, rng=rng)
    assert found["log_tokens_percent"] == pytest.approx(log_change(*lengths, axis=0))
    assert found["log_tokens_percent_interval"] == pytest.approx(
        list(theirs.confidence_interval), abs=0.2 * theirs.standard_error
    )
    summaries = summarize(before), summarize(after)
    assert found["aes"] == pytest.approx(
        accuracy_efficiency_score(*(side[name] for side in summaries for name in ("accuracy", "mean_tokens")))
    )
    low, high = found["aes_interval"]
    assert low < found["aes"] < high
    wrong = [row(r.prompt_id, r.length, False) for r in before]
    assert paired_difference(wrong, after)["aes"] is None


def test_length_is_compared_within_difficulty():
    """Hard problems are long and wrong. Within each level the longer half is the better one, and that is what shows."""
    rows = [row(f"e{i}", 10 + i, i >= 4, difficulty=1) for i in range(8)]
    rows += [row(f"h{i}", 100 + i, i >= 6, difficulty=2) for i in range(8)]
    found = by_length(rows)
    assert [quarter["accuracy"] for quarter in found] == [0, 0, 0.5, 1]
    assert [quarter["mean_tokens"] for quarter in found] == pytest.approx([55.5, 57.5, 59.5, 61.5])
    assert [quarter["rows"] for quarter in found] == [4] * 4
    table = length_rows(summarize(rows))
    assert table[0] == ["lengths", "mean tokens", "accuracy", "completions"]
    assert [line[0] for line in table[1:]] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert table[4][2] == "100.0 % [51.0, 100.0]"
    assert length_rows(summarize(rows[:1])) == []
    same = by_length([row(i, 7, True) for i in range(5)])
    assert [quarter["rows"] for quarter in same] == [5], "equal lengths share a bin"


def test_a_measure_that_some_resamples_lack_keeps_its_interval():
    rows = [row(i, 10 + i, i != 0) for i in range(6)]
    found = summarize(rows)
    assert found["mean_tokens_wrong"] == 10
    assert found["mean_tokens_wrong_interval"] == [10, 10]
    assert summarize(rows[1:])["mean_tokens_wrong_interval"] is None


def test_nothing_odd_is_said_of_sound_rows():
    sound = [row(i, 5, True, think=2) for i in range(3)]
    sound = [type(r)(**{**r.__dict__, "completion": "<think>a</think>b"}) for r in sound]
    assert notices(sound) == []


def test_another_models_tag_parts_thought_from_answer_in_every_measure():
    said = "[THINK]1, 2, 3 ... 400[/THINK]so 7"
    assert answer_key(said, "[/THINK]") == answer_key("so 7")
    assert yap_score(said, "7", "[/THINK]") == len("so 7") - 1
    wrong = [
        EvaluationRow("a", k, "q", "9", f"[THINK]{k}[/THINK]x", 5, 3, False, Verdict.of(False), {}) for k in range(3)
    ]
    right = [EvaluationRow("a", k, "q", "9", "[THINK]1[/THINK]9", 5, 3, False, Verdict.of(True), {}) for k in (3, 4)]
    assert summarize([*wrong, *right], "[/THINK]")["majority_at_5"] == 0, "three say x, whatever they thought"
    assert summarize([*wrong, *right])["majority_at_5"] == 1
    assert yap_summary(right, "[/THINK]")["yap_index"] == 0
