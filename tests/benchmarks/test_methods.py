"""The experiment of docs/results: teachers that are right, cells that are run once, rows that add up."""

from __future__ import annotations

import json
import re
from math import log

import pytest

from benchmarks import cells, leaderboard, methods
from benchmarks.cells import Cell, train_all
from benchmarks.reasoners import REASONERS
from concise_rl.commands import config
from concise_rl.data import Prompt
from concise_rl.evaluation import Evaluation, EvaluationRow
from concise_rl.methods.recipes import method_names
from concise_rl.testbeds import TESTBEDS, WhichSum, which_sum
from concise_rl.testbeds.warmup import build_tokenizer
from concise_rl.verifiers import Exact, Verdict


def row(length: int, correct: bool, prompt_id: str = "p") -> EvaluationRow:
    return EvaluationRow(prompt_id, 0, "q", "a", "a", length, length, False, Verdict.of(correct), {"oracle_tokens": 4})


# Tasks differ to a method in whether they have levels, and to GUI-G1 in which.
@pytest.mark.parametrize(
    ("task", "method"),
    [(methods.SWEPT, method) for method in method_names()]
    + [(task, method) for task in REASONERS for method in ("grpo", "gui_g1") if task != methods.SWEPT],
)
def test_every_method_composes_and_knows_the_levels(task, method, tmp_path):
    (cell,) = methods.cells_of(task, [method], [0])
    composed = config.compose([f"method={method}", *REASONERS[task].overrides(tmp_path), *cell.overrides])
    *_, advantage = config.method_of(composed).advantages
    shipped = REASONERS[task].shipped
    assert composed.model.path == (f"embedded:{REASONERS[task].model}" if shipped else str(tmp_path / task))
    if method == "gui_g1":
        levels = REASONERS[task].levels
        assert (advantage.column, advantage.minimum, advantage.maximum) == (
            ("difficulty", *levels) if levels else (None, None, None)
        )


@pytest.mark.parametrize("task", [task for task, reasoner in REASONERS.items() if reasoner.levels])
def test_levels_are_those_of_the_data(task):
    found = {prompt.columns["difficulty"] for prompt in TESTBEDS[task]().load("train")}
    assert (min(found), max(found)) == REASONERS[task].levels


def test_runs_are_as_long_as_the_model_recipes_say(tmp_path):
    found = {
        task: config.compose(["method=grpo", *reasoner.overrides(tmp_path)]).trainer
        for task, reasoner in REASONERS.items()
    }
    steps = {task: (trainer.max_steps, trainer.max_completion_length) for task, trainer in found.items()}
    assert (steps["running_total"], steps["which_sum"], steps["chain_sum"]) == ((120, 64), (40, 128), (32, 160))


def test_each_coefficient_takes_three_values_and_the_recipes_own_needs_no_cell_of_its_own():
    leaders = set(methods.cells_of(methods.SWEPT, method_names(), [0]))
    for method, coefficient in methods.COEFFICIENTS.items():
        found = methods.swept([method], 0)
        assert len({value for _, value in found}) >= 3
        assert [value for cell, value in found if cell in leaders] == [coefficient.default]
        model = f"model={REASONERS[methods.SWEPT].model}"
        own = config.compose([f"method={method}", model])
        stated = config.compose([f"method={method}", model, coefficient.override.format(coefficient.default)])
        assert config.method_of(own) == config.method_of(stated) or method == "dapo"
        for cell, _ in found:
            config.method_of(config.compose([f"method={method}", model, *cell.overrides]))


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
        summary = {"steps": 32, "training_seconds": 60 + cell.seed, "after": {"accuracy": 1.0, "mean_tokens": tokens}}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "origin.json").write_text(json.dumps({"commit": "abc", "date": f"2026-01-0{cell.seed + 1}"}))
    found = leaderboard.row_of(own, tmp_path)
    assert (found["seeds"], found["accuracy"], found["mean_tokens"], found["oracle_ratio"]) == (2, 1.0, 12.0, 3.0)
    assert found["aes"] == pytest.approx((1 - 12 / 20) + 3 * (1.0 / 0.5 - 1))
    assert found["dates"] == ["2026-01-01", "2026-01-02"]
    (_, _, line) = leaderboard.table([found])
    assert re.search(r"\| 2 \| 100.0 \[[\d.]+, 100.0\] \| 0.0 \| 12.0 \[12.0, 12.0\] \| 4.0 \|", line)
    assert "against" not in found
    assert leaderboard.stored_frontier([found]) is None


def test_a_row_of_a_bed_is_held_against_its_frontier(tmp_path):
    """A guesser on bed S that was a checker before: its tables name what it gave up, and where."""

    def evaluation(most: int) -> Evaluation:
        rows = []
        for prompt in WhichSum(test_size=64).load("test"):
            question = prompt.messages[0]["content"]
            text = which_sum.completion(question, most)
            verdict, tokens = Exact()(text, prompt.reference), which_sum.tokens(text)
            rows.append(
                EvaluationRow(
                    prompt.id, 0, question, prompt.reference, text, tokens, tokens - 2, False, verdict, prompt.columns
                )
            )
        return Evaluation(rows)

    cells = [Cell("which_sum", "kimi", 0), Cell("which_sum", "grpo", 0)]
    for cell, most in zip(cells, (0, 4), strict=True):
        folder = cell.folder(tmp_path)
        folder.mkdir(parents=True)
        evaluation(5).save(folder / "evaluation-before.jsonl")
        evaluation(most).save(folder / "evaluation-after.jsonl")
        summary = {"steps": 40, "training_seconds": 1, "after": {"accuracy": 1.0, "mean_tokens": 4}}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "origin.json").write_text(json.dumps({"commit": "abc", "date": "2026-01-01"}))
    rows = leaderboard.ranked([leaderboard.row_of([cell], tmp_path) for cell in cells])
    assert [row["method"] for row in rows] == ["grpo", "kimi"]
    assert rows[1]["frontier"][0] == [4.0, rows[1]["accuracy"]]
    assert rows[1]["against"]["regret"]["0.03"]["regret"] == pytest.approx(0)
    lines = leaderboard.bed_tables(rows)
    regret, levels, done = (place for place, line in enumerate(lines) if line.startswith("| --- "))
    assert re.search(r"\| 0\.0 \[-9\.4, 10\.9\] \| 0\.0 \[-4\.4, 0\.0\] \| 14\.0 ", lines[regret + 2])
    assert lines[levels + 2].endswith(" @ 4.0 | 0.0 @ 4.0 |")
    assert lines[done + 2] == "| kimi | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | – |"
    assert re.fullmatch(r"\| \*before training\* \| 1\.0 (\| \d\.\d ){3}\| 0\.0 \| 100\.0 \|", lines[done + 3])


def test_what_was_written_by_hand_outlives_the_numbers(tmp_path):
    page = tmp_path / "README.md"
    assert leaderboard.findings(page) == f"{leaderboard.FINDINGS}\n"
    page.write_text(f"old table\n\n{leaderboard.FINDINGS}\nShort wins.\n\nTwice.\n\n## Next\n\nold\n")
    assert leaderboard.findings(page) == f"{leaderboard.FINDINGS}\nShort wins.\n\nTwice.\n"
    page.write_text(leaderboard.findings(page) + "\n## Other\n")
    assert leaderboard.findings(page) == f"{leaderboard.FINDINGS}\nShort wins.\n\nTwice.\n"


def test_a_prompt_of_a_reasoner_is_the_question_alone():
    """The beds read the question from a stored row, which holds what the model saw."""
    from concise_rl.evaluation.evaluate import render_texts

    question = "Spell this word backward (example: sun -> nus): care"
    assert render_texts([Prompt.of(question, "erac")], build_tokenizer()) == [question]
