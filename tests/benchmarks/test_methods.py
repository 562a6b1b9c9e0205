"""The experiment of docs/results: teachers that are right, cells that are run once, rows that add up."""

from __future__ import annotations

import json
import re
from math import log

import numpy as np
import pytest

from benchmarks import cells, leaderboard, methods
from benchmarks.cells import Cell, train_all
from benchmarks.fits import of_task
from benchmarks.reasoners import REASONERS
from benchmarks.stored import BEFORE, Record, problems
from concise_rl.commands import config
from concise_rl.data import Prompt
from concise_rl.evaluation import EvaluationRow
from concise_rl.methods.registry import method_names
from concise_rl.testbeds import TESTBEDS
from concise_rl.testbeds.warmup import build_tokenizer
from concise_rl.verifiers import Verdict
from tests.benchmarks.fake import checker


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
        asked = [f"method={method}", model, *of_task(method, methods.SWEPT)]  # the recipe, in tokens of the bed
        own, stated = config.compose(asked), config.compose([*asked, coefficient.override.format(coefficient.default)])
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
        (cell.folder(runs) / "origin.json").write_text("{}")

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


def record(cell: Cell, right: float, tokens: int, **more) -> Record:
    """The first share of the problems is right, all take so many tokens."""
    asked = len(problems(cell.task))
    answers = "".join("1" if place < right * asked else "0" for place in range(asked))
    return Record(cell, answers, (tokens,) * asked, None, **{"commit": "abc", "date": "2026-01-01"} | more)


def test_a_row_pools_its_seeds_and_keeps_what_each_found():
    before = [record(Cell("chain_sum", BEFORE, seed), 0.5, 20) for seed in (0, 1)]
    after = [
        record(Cell("chain_sum", "hapo", seed), 1.0, tokens, date=f"2026-01-0{seed + 1}", steps=32, seconds=60 + seed,
               sampled_tokens=1000 + seed, taught=0.5)
        for seed, tokens in enumerate((8, 16))
    ]  # fmt: skip
    found = leaderboard.row_of(after, leaderboard.start_of(before))
    assert (found["seeds"], found["accuracy"], found["mean_tokens"]) == (2, 1.0, 12.0)
    assert found["aes"] == pytest.approx((1 - 12 / 20) + 3 * (1.0 / 0.5 - 1))
    assert (found["dates"], found["sampled_tokens"], found["taught"]) == (["2026-01-01", "2026-01-02"], 1000.5, 0.5)
    (_, _, line) = leaderboard.table([found])
    assert re.search(r"\| 2 \| 100.0 \[[\d.]+, 100.0\] \| 0.0 \| 12.0 \[12.0, 12.0\] \| 4.0 \|", line)
    assert "against" not in found
    assert leaderboard.stored_frontier([found]) is None


def test_a_row_of_a_bed_is_held_against_its_frontier():
    """A guesser on bed S that was a checker before: its tables name what it gave up, and where."""
    start = leaderboard.start_of([checker(BEFORE, 5)])
    rows = leaderboard.ranked(
        [leaderboard.row_of([checker(name, most)], start) for name, most in (("kimi", 0), ("grpo", 4))]
    )
    assert [row["method"] for row in rows] == ["grpo", "kimi"]
    assert rows[1]["frontier"][0] == [4.0, rows[1]["accuracy"]]
    assert rows[1]["against"]["regret"]["0.03"]["regret"] == pytest.approx(0)
    lines = leaderboard.bed_tables(rows)
    regret, levels, done = (place for place, line in enumerate(lines) if line.startswith("| --- "))
    assert re.search(r"\| 0\.0 \[-3\.\d, 3\.\d\] \| 0\.0 \[-3\.\d, 3\.\d\] \| 0\.0 \[", lines[regret + 2])
    assert lines[levels + 2].endswith(" @ 4.0 | 0.0 @ 4.0 |")
    assert lines[done + 2] == "| kimi | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | – |"
    assert re.fullmatch(r"\| \*before training\* \| 1\.0 (\| \d\.\d ){3}\| 0\.0 \| 100\.0 \|", lines[done + 3])


def test_means_of_numbers_in_dicts_leave_out_what_is_not_there():
    found = leaderboard.mean_of([{"a": {"b": 1.0, "c": None}}, {"a": {"b": 3.0, "c": 4.0, "d": 5}}])
    assert found == {"a": {"b": 2.0, "c": 4.0, "d": 5}}
    assert leaderboard.mean_of([None, None]) is None


def test_the_standard_error_of_a_value_follows_from_the_covariance():
    one = checker("grpo", 2)
    variance, both, tokens_variance = leaderboard.covariance([one])
    values = np.array([int(right) - 0.01 * n for right, n in zip(one.right, one.tokens, strict=True)])
    assert variance - 2 * 0.01 * both + 0.01**2 * tokens_variance == pytest.approx(values.var(ddof=1) / len(values))


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
