"""Numbers of an evaluation, against direct computation and scipy."""

from __future__ import annotations

import numpy as np
import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation import EvaluationRow, paired_difference, summarize
from concise_rl.evaluation.metrics import mcnemar_p
from concise_rl.reporting.summary import headline, summary_rows
from concise_rl.verifiers import Verdict


def row(problem, length, correct, *, sample=0, think=None, truncated=False, scorable=True, **columns):
    verdict = Verdict.of(correct) if scorable else Verdict.unscorable("killed")
    think = length if think is None else think
    return EvaluationRow(str(problem), sample, "q", "a", "c", length, think, truncated, verdict, columns)


def random_rows(problems, samples, seed):
    rng = np.random.default_rng(seed)
    skill = rng.uniform(0.2, 1.0, problems)
    return [
        row(p, int(rng.integers(5, 30) + 30 * skill[p]), bool(rng.uniform() < skill[p]), sample=k)
        for p in range(problems)
        for k in range(samples)
    ]


def test_worked_summary():
    rows = [
        row("a", 10, True, think=7, difficulty=2, oracle_tokens=8),  # 7 thinking, the tag, 2 answering
        row("b", 20, False, difficulty=10, oracle_tokens=12, truncated=True),
        row("c", 30, True, think=24, difficulty=2, oracle_tokens=20),
        row("d", 40, True, scorable=False, think=39, difficulty=10, oracle_tokens=40),
    ]
    found = summarize(rows)
    assert found["accuracy"] == 0.5, "the unscorable row counts as wrong"
    assert found["unscorable_frac"] == 0.25
    assert found["truncated_frac"] == 0.25
    assert found["mean_tokens"] == found["median_tokens"] == 25
    assert found["p90_tokens"] == pytest.approx(37)
    assert found["mean_think_tokens"] == (7 + 20 + 24 + 39) / 4
    assert found["mean_answer_tokens"] == (2 + 0 + 5 + 0) / 4
    assert found["mean_tokens_correct"] == 20
    assert found["mean_tokens_wrong"] == 30
    assert found["oracle_ratio"] == 100 / 80
    assert found["problems"] == 4
    assert found["samples"] == 1
    assert list(found["by_difficulty"]) == ["2", "10"], "in the order of numbers, not of texts"
    assert found["by_difficulty"]["2"]["accuracy"] == 1.0
    assert found["by_difficulty"]["2"]["accuracy_interval"] == pytest.approx([0.342, 1.0], abs=5e-4), "Wilson, 2 of 2"
    assert found["by_difficulty"]["10"]["mean_tokens"] == 30
    assert found["by_difficulty"]["10"]["oracle_ratio"] == 60 / 52


def test_what_is_not_known_is_none():
    found = summarize([row("a", 4, True, oracle_tokens=4), row("b", 6, True)])
    assert found["mean_tokens_wrong"] is None
    assert found["oracle_ratio"] is None
    assert found["by_difficulty"] == {}
    with pytest.raises(UserError, match="without rows"):
        summarize([])


def test_interval_agrees_with_scipy_when_each_problem_has_one_sample():
    from scipy.stats import bootstrap

    rows = random_rows(150, 1, seed=0)
    found = summarize(rows)
    for key, values in (
        ("accuracy_interval", np.array([float(r.correct) for r in rows])),
        ("mean_tokens_interval", np.array([float(r.length) for r in rows])),
    ):
        theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=8000, rng=np.random.default_rng(1))
        spread = values.std() / np.sqrt(len(values))
        # Both ends are estimated from finitely many resamples: 0.2 standard errors is about three times that noise.
        assert found[key] == pytest.approx(list(theirs.confidence_interval), abs=0.2 * spread)


def test_interval_resamples_whole_problems():
    """Eight identical samples a problem say nothing more than one: a bootstrap over rows would shrink by sqrt(8)."""
    once = random_rows(60, 1, seed=3)
    eight = [row(r.prompt_id, r.length, r.correct, sample=k) for r in once for k in range(8)]
    assert summarize(eight)["mean_tokens_interval"] == pytest.approx(summarize(once)["mean_tokens_interval"])
    assert summarize(eight)["samples"] == 8


def test_unequal_samples_against_a_direct_loop():
    rows = random_rows(25, 3, seed=4)[:-5]
    by_problem = {}
    for r in rows:
        by_problem.setdefault(r.prompt_id, []).append(r.length)
    groups = list(by_problem.values())
    rng = np.random.default_rng(9)
    means = [
        np.mean([length for p in rng.integers(len(groups), size=len(groups)) for length in groups[p]])
        for _ in range(4000)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    assert summarize(rows)["mean_tokens_interval"] == pytest.approx([low, high], abs=0.15 * np.std(means) * 2)


def test_worked_difference():
    before = [row(p, 100, p != 0) for p in range(10)]  # 9 of 10 right
    after = [row(p, 40 if p < 5 else 60, p not in (1, 2, 3)) for p in reversed(range(10))]  # lost 1, 2, 3; won 0
    found = paired_difference(before, after)
    assert found["accuracy_points"] == pytest.approx(-20)
    assert found["tokens_percent"] == pytest.approx(-50)
    # b + c = 4 verdicts changed, 1 of them for the better: 2 * (C(4,0) + C(4,1)) / 16.
    assert found["mcnemar_p"] == pytest.approx(2 * (1 + 4) / 16)
    low, high = found["tokens_percent_interval"]
    assert -60 <= low < -50 < high <= -40


def test_pairing_cancels_what_the_problems_share():
    """Each problem loses exactly half its tokens and keeps its verdict: no uncertainty is left, however they differ."""
    before = random_rows(80, 1, seed=5)
    before = [row(r.prompt_id, 2 * r.length, r.correct) for r in before]
    after = [row(r.prompt_id, r.length // 2, r.correct) for r in before]
    found = paired_difference(before, after)
    assert found["tokens_percent_interval"] == pytest.approx([-50, -50])
    low, high = found["accuracy_points_interval"]
    assert (low, high) == pytest.approx((-4.58, 4.58), abs=0.01), "80 problems do not show that no verdict ever changes"
    assert found["mcnemar_p"] == 1


def test_mcnemar_against_the_binomial_test():
    from scipy.stats import binomtest

    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, 200), (rng.uniform(size=200) < 0.7).astype(int)
    lost, won = int(((before == 1) & (after == 0)).sum()), int(((before == 0) & (after == 1)).sum())
    assert mcnemar_p(before, after) == pytest.approx(binomtest(lost, lost + won).pvalue)


def test_several_samples_have_no_mcnemar_test():
    assert paired_difference(random_rows(5, 2, 0), random_rows(5, 2, 1))["mcnemar_p"] is None


@pytest.mark.parametrize(("before", "after"), [(range(3), range(1, 4)), (range(3), range(4)), ([], [])])
def test_other_problems_are_refused(before, after):
    with pytest.raises(UserError, match="same problems"):
        paired_difference([row(p, 5, True) for p in before], [row(p, 5, True) for p in after])


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("samples", [1, 4])
def test_nothing_but_right_or_wrong_rows_leave_uncertainty(right, samples):
    from scipy.stats import binomtest

    rows = [row(p, 5 + p, right, sample=k, truncated=not right) for p in range(20) for k in range(samples)]
    found = summarize(rows)
    wilson = binomtest(20 * right, 20).proportion_ci(method="wilson")
    assert found["accuracy_interval"] == pytest.approx(list(wilson)), "of the problems, however many samples each has"
    assert found["truncated_frac_interval"] == pytest.approx([1 - wilson.high, 1 - wilson.low])
    low, high = found["accuracy_by_length"][0]["accuracy_interval"]
    assert low < high
    if samples > 1:
        assert found["pass_at_4_interval"] == pytest.approx(list(wilson))
    turned = [row(p, 5 + p, not right, sample=k) for p in range(20) for k in range(samples)]
    for change, points in ((paired_difference(rows, rows), 0), (paired_difference(rows, turned), 100 - 200 * right)):
        assert change["accuracy_points"] == points
        unseen = 100 * (wilson.high - wilson.low)
        ends = [max(-100, points - unseen), min(100, points + unseen)]
        assert change["accuracy_points_interval"] == pytest.approx(ends)


def test_one_problem_of_several_samples_has_an_interval():
    found = summarize([row("a", 5, k < 2, sample=k) for k in range(4)])
    assert found["accuracy"] == 0.5
    assert found["accuracy_interval"] == pytest.approx([0.0546, 0.9454], abs=1e-3)


def test_few_problems_are_called_few():
    def said(problems):
        rows = random_rows(problems, 1, seed=1)
        change = paired_difference(rows, rows)
        return headline(change), summary_rows({"x": summarize(rows)}, keys=["problems"])[1][1]

    assert said(29)[0].endswith("no loss shown at 95 %; 29 problems are few")
    assert said(29)[1] == "29 (few)"
    assert said(30)[0].endswith("at 95 %")
    assert said(30)[1] == "30"


def test_a_change_from_no_token_at_all_is_said_without_numbers():
    change = paired_difference([row("a", 0, False)], [row("a", 5, True)])
    assert headline(change).startswith("tokens -, accuracy +100.0 points")
