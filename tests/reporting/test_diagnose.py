"""Runs that are ill on purpose are each told what ails them, and a healthy one that it is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import DataError
from concise_rl.reporting.diagnose import Evidence, Level, diagnose
from concise_rl.reporting.diagnose.evidence import Credit, Curve
from concise_rl.reporting.diagnose.rules import COSTS, ILLNESSES
from concise_rl.reporting.diagnose.show import show_diagnosis
from concise_rl.reporting.run_log import StoredStep

ROOT = Path(__file__).parents[2]
TOLD = {
    "healthy": (Level.fine, "A healthy curve", "no figure shows a fault"),
    "pays_brevity": (Level.ill, "Length collapsed", "the reward pays for brevity without a right answer"),
    "too_fast": (Level.ill, "Accuracy fell", "most likely the updates were too large"),
    "rate_too_small": (Level.ill, "Nothing changes", "the learning rates add up to 8e-09"),
    "too_easy": (Level.ill, "Nothing changes", "32 of 32 groups are all right"),
    "cut_off": (Level.ill, "Many completions are cut off", "max_completion_length=12"),
    "no_second_visit": (Level.ill, "Nothing changes", "each prompt came 1.0 times"),
}


def maker():
    spec = importlib.util.spec_from_file_location("ill_runs", ROOT / "benchmarks" / "ill_runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TOLD)
def test_each_run_is_told_what_it_is(tmp_path, name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    torch.set_num_threads(1)
    level, title, cause = TOLD[name]
    size = {"steps": 12, "rows": 64} if name == "pays_brevity" else {"steps": 8, "rows": 32}
    evidence = Evidence.read(maker().make(name, tmp_path, **size))
    findings = diagnose(evidence)
    main = findings[0] if level is Level.ill else findings[-1]
    assert (main.level, main.name) == (level, title), findings
    assert cause in main.cause
    capsys.readouterr()
    show_diagnosis(evidence, findings)
    said = capsys.readouterr().out
    assert title in said
    assert max(map(len, said.splitlines())) <= 80


def test_every_finding_has_its_heading_on_the_page():
    page = (ROOT / "docs" / "diagnose.md").read_text()
    headings = set(re.findall(r"^#+ (.*)$", page, re.M))
    source = (ROOT / "concise_rl" / "reporting" / "diagnose" / "rules.py").read_text()
    names = re.findall(r'Level\.\w+, "(\w[\w ]+)"|level, "(\w[\w ]+)"|^COLLAPSED, FELL = "(.*)", "(.*)"', source, re.M)
    named = {name for found in names for name in found if name}
    assert len(named) >= len(ILLNESSES) + len(COSTS)
    assert named <= headings


def fake(**metrics):
    """A run of eight steps whose metrics are constant where a number is given."""
    usual = {"accuracy": 0.8, "mean_tokens": 50.0, "learning_rate": 1e-4, "zero_credit_frac": 0.1} | metrics
    lines = [{n: v[s] if isinstance(v, list) else v for n, v in usual.items()} | {"step": s + 1} for s in range(8)]
    return Evidence.of(lines, {"trainer": {"loss_type": "grpo"}}, [])


@pytest.mark.parametrize(
    ("metrics", "cause"),
    [
        ({"skipped_steps": 1.0}, "not finite and were skipped"),
        ({"unscorable_frac": 0.9}, "have no verdict"),
        ({"learning_rate": 0.0}, "add up to 0"),
        ({}, "no change beyond the noise"),
    ],
)
def test_why_nothing_changes(metrics, cause):
    found = diagnose(fake(**metrics))
    assert found[0].name == "Nothing changes"
    assert cause in found[0].cause


def test_a_change_is_told_from_noise():
    steady = Curve.of([50, 52, 48, 51, 49, 50, 52, 48])
    assert not steady.moved(1)
    fallen = Curve.of([50, 52, 30, 10, 11, 9, 10, 10])
    assert fallen.moved(1)
    assert (fallen.start, fallen.end) == (51, 10)


def test_pressure_on_length_by_hand():
    # One group: right with 10 tokens, wrong with 30. Credit +1 and -1, each 10 tokens from the mean.
    batch = RolloutBatch.of(prompt_keys=["a"], group_size=2, lengths=[10, 30], correct=[1, 0], limits=[40, 40])
    credit = torch.tensor([1.0, -1.0], dtype=torch.float64)
    seen = Credit()
    seen.add(StoredStep(1, batch, batch.task_reward, credit, ["a"], ["x", "y"]))
    for loss in ("grpo", "bnpo", "dr_grpo"):
        assert seen.pressure(loss) == -1, "short and right, long and wrong: all of it shortens"
    # The long one right too, credit +1 for both: a row's own divisor makes the short one pull three times as hard.
    seen = Credit()
    seen.add(StoredStep(1, batch, batch.task_reward, credit.abs(), ["a"], ["x", "y"]))
    assert seen.pressure("dr_grpo") == 0
    assert seen.pressure("grpo") == pytest.approx((1 / 30 - 1 / 10) / (1 / 30 + 1 / 10))
    assert (seen.pairs, seen.inverted, seen.shaped) == (0, 0, 0)


def test_a_short_wrong_answer_that_earns_more_is_counted():
    batch = RolloutBatch.of(prompt_keys=["a"], group_size=3, lengths=[30, 40, 5], correct=[1, 1, 0])
    credit = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    seen = Credit()
    seen.add(StoredStep(1, batch, batch.task_reward - 0.5, credit, ["a"], ["x", "y", "z"]))
    assert (seen.pairs, seen.inverted, seen.right, seen.punished, seen.shaped) == (2, 1, 2, 1, 3)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"metrics.jsonl"):
        Evidence.read(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "accuracy": 1.0}\n')
    with pytest.raises(DataError, match="1 steps are too few"):
        Evidence.read(tmp_path)
