"""Rows against a frontier: regret, distances, slices, and what a policy does on the beds."""

from __future__ import annotations

import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation import EvaluationRow
from concise_rl.evaluation.tradeoff import (
    COMPARED,
    KNOWN,
    against_frontier,
    behaviour,
    budget_curve,
    frontier_of,
    known_frontier,
    known_tradeoff,
    slices,
    tradeoff,
)
from concise_rl.testbeds import RunningTotal, WhichSum
from concise_rl.testbeds import running_total as m
from concise_rl.testbeds import which_sum as s
from concise_rl.testbeds.beds import merging_law
from concise_rl.testbeds.frontier import Frontier, Point, hull
from concise_rl.verifiers import Exact, Verdict


def row(correct: bool, length: int, prompt_id: str = "p", sample: int = 0, **columns) -> EvaluationRow:
    return EvaluationRow(prompt_id, sample, "q", "a", "a", length, None, False, Verdict.of(correct), columns)


def answered(prompts, write) -> list[EvaluationRow]:
    rows = []
    for prompt in prompts:
        question = prompt.messages[0]["content"]
        text = write(question)
        verdict = Exact()(text, prompt.reference)
        tokens = max(1, s.tokens(text))
        rows.append(
            EvaluationRow(prompt.id, 0, question, prompt.reference, text, tokens, None, False, verdict, prompt.columns)
        )
    return rows


LINE = Frontier(
    (Point(0.5, 4), Point(0.9, 8), Point(0.95, 20)), tuple(hull([Point(0.5, 4), Point(0.9, 8), Point(0.95, 20)]))
)


def test_regret_and_distances_by_hand():
    rows = [row(True, 6, "p"), row(False, 10, "q"), row(True, 6, "r"), row(False, 2, "t")]  # 50 % at 6 tokens
    found = against_frontier(rows, LINE, (0.0, 0.01, 0.2))
    assert found["regret"]["0"]["regret"] == pytest.approx(45)
    assert found["regret"]["0.01"]["regret"] == pytest.approx(100 * ((0.9 - 0.08) - (0.5 - 0.06)))
    assert found["regret"]["0.2"]["regret"] == pytest.approx(100 * ((0.5 - 0.8) - (0.5 - 1.2)))
    assert found["below"] == pytest.approx(20)
    assert found["beyond"] == pytest.approx(2)
    low, high = found["regret"]["0.01"]["regret_interval"]
    assert low < 38 < high
    with pytest.raises(UserError, match="prices"):
        against_frontier(rows, LINE, (-0.1,))


def test_distances_are_not_defined_where_the_frontier_has_no_policy():
    assert against_frontier([row(True, 3)], LINE)["below"] is None
    assert against_frontier([row(True, 30)], LINE)["beyond"] is None


def test_samples_of_one_problem_are_not_more_problems():
    few = [row(i % 2 == 0, 6, f"p{i}") for i in range(8)]
    many = [row(i % 2 == 0, 6, f"p{i}", sample) for i in range(8) for sample in range(5)]
    widths = [
        high - low
        for low, high in (against_frontier(rows, LINE)["regret"]["0.01"]["regret_interval"] for rows in (few, many))
    ]
    assert widths[0] == pytest.approx(widths[1])


def test_the_best_policy_of_bed_s_has_no_regret_and_lies_on_its_frontier():
    prompts = WhichSum().load("test")
    rows = answered(prompts, lambda q: s.completion(q, {2: 0, 3: 0, 4: 3, 5: 4}[len(s.options(q))]))
    frontier = known_frontier(rows)
    assert frontier is not None
    found = against_frontier(rows, frontier)
    assert found["regret"]["0.01"]["regret"] == pytest.approx(0, abs=1e-9)
    assert found["below"] == pytest.approx(0, abs=1e-9)
    assert found["beyond"] == pytest.approx(0, abs=1e-9)
    assert found["regret"]["0.03"]["regret"] > 5
    done = behaviour(rows)
    assert done["levels"]["2"] == {"checks": 0, "waste": 0, "guessed": 1, "no_check": 1, "off_grammar": 0}
    assert done["levels"]["5"]["guessed"] == 0
    assert done["skill"] == {"sound": 1.0}
    parts = slices(rows)
    assert set(parts) == {"n=2", "n=3", "n=4", "n=5", "hard", "trap"}
    assert parts["hard"]["accuracy"] == 1.0
    assert parts["n=2"]["mean_tokens"] == 4
    # Of the traps, where a guess is wrong, those of the levels that guess are lost.
    traps = [p.columns["difficulty"] for p in prompts if p.columns["trap"]]
    assert parts["trap"]["accuracy"] == pytest.approx(sum(n > 3 for n in traps) / len(traps))


def test_checks_for_nothing_are_beyond_the_frontier():
    rows = answered(WhichSum().load("test"), lambda q: s.completion(q, len(s.options(q)), waste=1))
    found = against_frontier(rows, known_frontier(rows))
    assert found["below"] == pytest.approx(0)
    assert found["beyond"] > 13


def test_skill_and_composition_of_bed_m_are_told_apart():
    prompts = RunningTotal().load("test")
    rows = answered(prompts, lambda q: m.completion(q, (2,) * (len(m.totals(q)) // 2)))
    found = behaviour(rows)
    assert found["skill"] == {"2": {"error": 0.0, "stated": 128 * (1 + 2 + 3 + 4)}}
    assert found["levels"]["8"] == {"totals": 4, "merged": {"2": 1.0}, "off_grammar": 0}
    law = merging_law()
    assert found["law_accuracy"] == pytest.approx(sum(law.point((2,) * k).accuracy for k in (1, 2, 3, 4)) / 4)

    def wrong_at_b(question: str) -> str:
        true = m.totals(question)
        return f"<think>b{true[2] + 1}</think>{true[-1]}" if len(true) > 3 else "<think>b"

    found = behaviour(answered(prompts, wrong_at_b))
    assert found["levels"]["2"] == {"totals": None, "merged": {}, "off_grammar": 1.0}
    # What follows a wrong total is not held against the reasoner.
    assert found["skill"] == {"2": {"error": 1.0, "stated": 384}}


def test_where_no_frontier_is_known_the_best_of_the_compared_is_named_so():
    entries = {"a": [row(True, 4), row(False, 4, "q")], "b": [row(True, 9), row(True, 9, "q")], "c": [row(False, 9)]}
    frontier, name = frontier_of(entries)
    assert name == COMPARED
    assert [p.policy for p in frontier.mixtures] == ["a", "b"]
    assert behaviour(entries["a"]) is None
    known, name = frontier_of({"m": answered(RunningTotal(test_size=8).load("test"), lambda q: "")})
    assert (known, name) == (merging_law().frontier(), KNOWN)
    with pytest.raises(UserError, match="needs an entry"):
        frontier_of({})


def test_a_budget_is_kept_by_cutting_off():
    rows = [row(True, 4), row(False, 6, "q"), row(True, 10, "r"), row(True, 10, "s")]
    curve = [(point.accuracy, point.tokens) for point in budget_curve(rows)]
    assert curve == [(0.25, 4.0), (0.25, (4 + 6 + 6 + 6) / 4), (0.75, 7.5)]
    found = against_frontier(rows, LINE)
    assert found["budget_gap"] == pytest.approx(100 * LINE.gap([4.0, 5.5, 7.5], [0.25, 0.25, 0.75]))
    low, high = found["budget_gap_interval"]
    assert low < found["budget_gap"] < high


def test_the_frontier_of_bed_m_is_that_of_the_levels_asked():
    prompts = [p for p in RunningTotal().load("test") if p.columns["difficulty"] == 4]
    rows = answered(prompts, lambda q: m.completion(q, (1,) * 4))
    frontier = known_frontier(rows)
    points = merging_law().levels[4].points()
    assert frontier.best(0.0).accuracy == max(point.accuracy for point in points)
    assert {len(corner.policy) for corner in frontier.mixtures} == {1}


def test_prices_are_of_the_size_of_the_answers_where_no_frontier_is_known():
    found = tradeoff({"a": [row(True, 400), row(False, 400, "q")], "b": [row(True, 1600), row(True, 1600, "q")]})
    assert (found.name, found.prices) == (COMPARED, (3e-05, 0.0001, 0.0003))
    assert found.entries["a"]["against"]["regret"]["0.0001"]["regret"] == pytest.approx(100 * (1 - 0.16 - 0.5 + 0.04))
    assert known_tradeoff({"a": [row(True, 400)]}) is None
    assert known_tradeoff({}) is None
    beds = {"x": answered(RunningTotal(test_size=8).load("test"), lambda q: "<think></think>1")}
    assert (known_tradeoff(beds).name, known_tradeoff(beds).prices) == (KNOWN, (0.003, 0.01, 0.03))
    assert tradeoff(beds, [0.5]).prices == (0.5,)
