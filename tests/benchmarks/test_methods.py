"""The experiment of docs/results: teachers that are right, cells that are run once, rows that add up."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from itertools import islice
from math import log

import pytest

from benchmarks import cells, leaderboard, methods
from benchmarks.cells import Cell, train_all
from benchmarks.reasoners import REASONERS, halvings, numbered_letters
from concise_rl.commands import config
from concise_rl.data import Prompt
from concise_rl.evaluation import Evaluation, EvaluationRow
from concise_rl.methods import method_names
from concise_rl.testbeds.warmup import RECHECK, build_tokenizer
from concise_rl.verifiers import Exact, Verdict


def row(length: int, correct: bool, prompt_id: str = "p") -> EvaluationRow:
    return EvaluationRow(prompt_id, 0, "q", "a", "a", length, length, False, Verdict.of(correct), {"oracle_tokens": 4})


def test_teachers_show_every_step():
    assert halvings("the number 181?") == "181:1,90,45:2,22,11:3,5:4,2,1:5"
    assert halvings("the number 6?") == "6,3:1,1:2"
    assert numbered_letters("nus): care") == "1c2a3r4e,4e3r2a1c"


@pytest.mark.parametrize("task", REASONERS)
def test_traces_end_in_the_tasks_own_answer_and_never_show_a_test_problem(task):
    pytest.importorskip("reasoning_gym", reason="pip install 'concise-rl[tasks]'")
    reasoner = replace(REASONERS[task], taught=40, test_size=20)
    test = {p.messages[0]["content"]: p.reference for p in reasoner.data().load("test")}
    references = {p.messages[0]["content"]: p.reference for p in reasoner.data(40).load("train")}
    tokenizer = build_tokenizer()
    warmup = replace(reasoner.config(), recheck_weights=[0, 1], plain_share=0.5, steps=10, batch_size=8, start="")
    for number, (question, completion) in enumerate(islice(reasoner.traces(warmup, random.Random(0)), 80)):
        assert question not in test
        assert Exact()(completion, references[question]).correct
        assert completion.count(RECHECK) == (number >= 40)
        if number < 40:
            tokens = len(tokenizer.encode(completion)) + 1
            assert reasoner.oracle_tokens(question, references[question]) == tokens
            assert tokens < reasoner.max_completion_tokens


@pytest.mark.parametrize("task", REASONERS)
@pytest.mark.parametrize("method", method_names())
def test_every_method_composes_on_every_reasoner(task, method, tmp_path):
    (cell,) = methods.cells_of(task, [method], [0])
    composed = config.compose([f"method={method}", *REASONERS[task].overrides(tmp_path), *cell.overrides])
    advantage = config.method_of(composed).advantages[-1]
    assert composed.data.task == task
    assert dict(composed.data.config) == REASONERS[task].settings
    if method == "gui_g1":
        assert advantage.column is None  # these tasks have no column `difficulty`


def test_each_coefficient_takes_three_values_and_the_recipes_own_needs_no_cell_of_its_own():
    leaders = set(methods.cells_of(methods.EMBEDDED, method_names(), [0]))
    for method, coefficient in methods.COEFFICIENTS.items():
        found = methods.swept([method], 0)
        assert len({value for _, value in found}) >= 3
        assert [value for cell, value in found if cell in leaders] == [coefficient.default]
        own = config.compose([f"method={method}", "model=tiny"])
        stated = config.compose([f"method={method}", "model=tiny", coefficient.override.format(coefficient.default)])
        assert config.method_of(own).components == config.method_of(stated).components or method == "dapo"
        for cell, _ in found:
            config.method_of(config.compose([f"method={method}", "model=tiny", *cell.overrides]))


def test_a_cell_is_run_once_and_a_failed_one_stops_no_other(tmp_path, monkeypatch, capsys):
    asked = []

    def fake(cell, runs, overrides):
        asked.append((cell.method, *overrides))
        if cell.method == "pear":
            raise RuntimeError("out of memory")
        cell.folder(runs).mkdir(parents=True)
        (cell.folder(runs) / "summary.json").write_text(json.dumps({"headline": "tokens -1 %"}))

    monkeypatch.setattr(cells, "train", fake)
    wanted = [Cell("t", "pear", 0), Cell("t", "hapo", 0), Cell("t", "hapo", 0, "weight=2", ("shaper.hapo.weight=2",))]
    train_all(wanted, tmp_path, lambda cell: [f"seed={cell.seed}"], workers=1, minutes=None)
    assert [name for name, *_ in asked] == ["pear", "hapo", "hapo"]
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["hapo-seed0", "hapo-weight=2-seed0"]
    assert "FAILED t pear seed 0: out of memory" in capsys.readouterr().out
    train_all(wanted, tmp_path, lambda _: [], workers=1, minutes=None)
    assert [name for name, *_ in asked[3:]] == ["pear"]
    train_all(wanted, tmp_path, lambda _: [], workers=1, minutes=0)
    assert len(asked) == 4


def test_budget_area_counts_what_is_right_and_ended_within_each_budget():
    found = leaderboard.within_budgets([row(8, True), row(20, True, "q"), row(8, False, "r")], budgets=(8, 16, 32))
    assert [point["accuracy"] for point in found["points"]] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert [point["mean_tokens"] for point in found["points"]] == pytest.approx([8, 32 / 3, 12])
    area = (1 / 3 * log(2) + 1 / 2 * log(2)) / log(4)
    assert found["budget_area"] == pytest.approx(area)


def test_a_row_pools_its_seeds_and_keeps_what_each_found(tmp_path):
    own = [Cell("chain_sum", "hapo", seed) for seed in (0, 1)]
    for cell, tokens in zip(own, (8, 16), strict=True):
        folder = cell.folder(tmp_path)
        folder.mkdir(parents=True)
        Evaluation([row(20, True), row(20, False, "q")]).save(folder / "evaluation-before.jsonl")
        Evaluation([row(tokens, True), row(tokens, True, "q")]).save(folder / "evaluation-after.jsonl")
        summary = {"training_seconds": 60 + cell.seed, "after": {"accuracy": 1.0, "mean_tokens": tokens}}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "origin.json").write_text(json.dumps({"commit": "abc", "date": f"2026-01-0{cell.seed + 1}"}))
    found = leaderboard.row_of(own, tmp_path)
    assert (found["seeds"], found["accuracy"], found["mean_tokens"], found["oracle_ratio"]) == (2, 1.0, 12.0, 3.0)
    assert found["aes"] == pytest.approx((1 - 12 / 20) + 3 * (1.0 / 0.5 - 1))
    assert found["dates"] == ["2026-01-01", "2026-01-02"]
    (_, _, line) = leaderboard.table([found])
    assert re.search(r"\| 2 \| 100.0 \[100.0, 100.0\] \| 0.0 \| 12.0 \[12.0, 12.0\] \| 4.0 \|", line)
    other = leaderboard.row_of(own, tmp_path, oracle=lambda row: 6)
    assert other["oracle_ratio"] == 2.0


def test_what_was_written_by_hand_outlives_the_numbers(tmp_path):
    page = tmp_path / "README.md"
    assert leaderboard.findings(page) == f"{leaderboard.FINDINGS}\n"
    page.write_text(f"old table\n\n{leaderboard.FINDINGS}\nShort wins.\n\nTwice.\n\n## Next\n\nold\n")
    assert leaderboard.findings(page) == f"{leaderboard.FINDINGS}\nShort wins.\n\nTwice.\n"
    page.write_text(leaderboard.findings(page) + "\n## Other\n")
    assert leaderboard.findings(page) == f"{leaderboard.FINDINGS}\nShort wins.\n\nTwice.\n"


def test_a_prompt_of_a_reasoner_is_the_question_alone():
    """`Reasoner.oracle_tokens` reads the question from a stored row, which holds what the model saw."""
    from concise_rl.evaluation.evaluate import render_text

    question = "Spell this word backward (example: sun -> nus): care"
    assert render_text(Prompt.of(question, "erac"), build_tokenizer()) == question
