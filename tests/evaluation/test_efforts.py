"""An evaluation at levels of effort: each level's words, one curve, the level without words sampled once."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from concise_rl.commands.config import compose
from concise_rl.commands.evaluate import evaluate_task, load_backend, planned
from concise_rl.data.efforts import WORDS, Level
from concise_rl.errors import UserError
from concise_rl.evaluation import Evaluation
from concise_rl.evaluation.efforts import effort_levels, effort_sweep
from concise_rl.methods.edits.wording import edited
from concise_rl.reporting.compare.load import load_entries
from concise_rl.reporting.compare.pictures import effort_charts, looks
from concise_rl.reporting.compare.results import results
from concise_rl.reporting.evaluations import detail_tables
from concise_rl.testbeds import ChainSum

OVERRIDES = ["sweep.efforts=[high,low]", "evaluation.problems=6", "evaluation.max_new_tokens=48"]


def test_levels_of_a_real_model_reach_the_page(tmp_path):
    (task,) = planned(compose(OVERRIDES, "eval"), "chain_sum", OVERRIDES)
    prompts = ChainSum().load("test")[:6]
    backend, tokenizer = load_backend(task.config)
    summary = evaluate_task(task, prompts, backend, tokenizer, tmp_path / "run", Console(file=io.StringIO()))
    low, high = summary["effort_curve"]["points"]
    assert (low["level"], high["level"]) == ("low", "high"), "least effort first"
    assert high["accuracy"] == summary["accuracy"], "high adds no words: its completions are those of the evaluation"
    stored = Evaluation.load(tmp_path / "run" / "effort-low.jsonl")
    assert all(row.prompt.endswith(WORDS[Level.low]) for row in stored.rows)
    assert [row.prompt_id for row in stored.rows] == [prompt.id for prompt in prompts]
    assert not (tmp_path / "run" / "effort-high.jsonl").exists()
    assert any("levels of effort" in str(table.title) for table in detail_tables("chain_sum", summary))

    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary, default=str))
    entries = load_entries([tmp_path / "run"])
    ((_, rows),) = results(entries, entries[0]).items()
    (chart,) = effort_charts(rows, looks(entries))
    line, *points = chart.series
    assert list(line.x) == [low["mean_tokens"], high["mean_tokens"]]
    assert [point.name for point in points] == ["run, low", "run, high"]
    assert points[0].y_intervals == [tuple(100 * end for end in low["accuracy_interval"])]


def test_each_level_asks_in_its_words():
    prompts = ChainSum().load("test")[:3]
    asked = {}

    def evaluate(edit):
        asked[edit.level] = [edited(edit, prompt, 0).messages[-1]["content"] for prompt in prompts]
        return SimpleNamespace(summary=lambda: {"accuracy": 0.5, "mean_tokens": 9.0, "problems": 3})

    found = effort_sweep([Level.medium], evaluate)
    assert found == {"points": [{"level": "medium", "accuracy": 0.5, "mean_tokens": 9.0}], "problems": 3}
    assert asked[Level.medium] == [p.messages[-1]["content"] + WORDS[Level.medium] for p in prompts]
    assert effort_levels(["high", "low", "low"]) == [Level.low, Level.high]


def test_an_unknown_level_is_refused_before_a_model_is_loaded():
    overrides = ["sweep.efforts=[lazy]"]
    with pytest.raises(UserError, match=r"sweep.efforts='lazy': choose one of low, medium, high"):
        planned(compose(overrides, "eval"), "chain_sum", overrides)
