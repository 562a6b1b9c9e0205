"""Runs that can be told apart: their names, a sweep's jobs and its end, and what each run wrote down of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from concise_rl.commands import config
from concise_rl.commands.naming import LONGEST, differing, run_name
from concise_rl.commands.sweep import entries, number_of_jobs, without_common
from concise_rl.reporting.run_record import command_line, hardware, read_record, record_start, without_secrets
from concise_rl.reporting.sweep_table import sweep_rows
from tests.reporting.fake import AFTER, DIFFERENCE


def named(monkeypatch, *overrides: str) -> str:
    """The name of the run that these overrides of the command line begin."""
    composed = config.compose([*overrides])
    data = next((o.partition("=")[2] for o in overrides if o.startswith("data=")), "chain_sum")

    class Job:
        class runtime:
            choices = {"data": data}  # noqa: RUF012

        class overrides:
            task: list[str]

    Job.overrides.task = config.open_foreign(overrides)
    monkeypatch.setattr(HydraConfig, "initialized", staticmethod(lambda: True))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: Job))
    return run_name(_root_=composed)


def test_a_name_holds_what_results_hang_on_and_nothing_else(monkeypatch):
    assert named(monkeypatch) == "hapo-chain_sum-seed0"
    assert named(monkeypatch, "method=kimi", "seed=3", "data=which_sum") == "kimi-which_sum-seed3"
    quiet = ("run.progress=false", "trainer.save_steps=4", "tracking=wandb", "evaluation.problems=8", "overwrite=true")
    assert named(monkeypatch, *quiet) == "hapo-chain_sum-seed0"
    assert named(monkeypatch, "shaper.hapo.weight=0.5", "trainer.learning_rate=1e-5") == (
        "hapo-chain_sum-weight_0.5-learning_rate_1e-5-seed0"
    )
    assert named(monkeypatch, "method.shapers=[hapo,overlong]") == "hapo-chain_sum-shapers_hapo_overlong-seed0"
    assert named(monkeypatch, "model=hf", "model.path=/home/me/models/small") == (
        "hapo-chain_sum-hf-path_models_small-seed0"
    )
    two = named(monkeypatch, "shaper.hapo.weight=1", "shaper.deep_compress.weight=2")
    assert two == "hapo-chain_sum-hapo.weight_1-deep_compress.weight_2-seed0"


def test_a_long_name_is_cut_and_stays_its_own(monkeypatch):
    paths = [named(monkeypatch, f"system_prompt='{'word ' * 60}{k}'") for k in range(2)]
    assert len(set(paths)) == 2
    assert all(len(path) == LONGEST for path in paths)


def test_a_folder_of_that_name_can_be_given_to_hydra_again(monkeypatch):
    path = named(monkeypatch, "shaper.hapo.weight=0.5", "method.shapers=[hapo,overlong]")
    assert config.compose([f"run.dir=runs/{path}"]).run.dir == f"runs/{path}"
    assert differing(["hydra.job.num=1", "run=cpu", "peft=lora"]) == {"peft": "lora"}


def test_jobs_of_a_sweep_are_counted_and_seeds_go_together():
    assert number_of_jobs(["method=grpo,hapo", "seed=range(3)", "trainer.max_steps=4", "system_prompt=a,b"]) == 12
    jobs = [
        (Path(f"{method}-{seed}"), [f"method={method}", f"seed={seed}", "trainer.max_steps=4"])
        for method in ("grpo", "hapo")
        for seed in (0, 1)
    ]
    assert without_common(jobs) == [f"method={method} seed={seed}" for method in ("grpo", "hapo") for seed in (0, 1)]
    assert entries(jobs) == {
        "method grpo": [Path("grpo-0"), Path("grpo-1")],
        "method hapo": [Path("hapo-0"), Path("hapo-1")],
    }
    assert without_common(jobs[:1]) == ["method=grpo seed=0 trainer.max_steps=4"]


def test_the_table_at_the_end_of_a_sweep(tmp_path):
    for name, summary in (("a", {"after": AFTER, "difference": DIFFERENCE}), ("b", {"steps": 2})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    rows = sweep_rows([(tmp_path / "a", "method=hapo"), (tmp_path / "b", "method=grpo"), (tmp_path / "c", "seed=1")])
    assert rows[1] == ["method=hapo", "95.1 %", "-0.4 points [-1.6, +0.8]", "25.8", "-53 % [-55, -51]"]
    assert rows[2] == ["method=grpo", *["–"] * 4]
    assert rows[3] == ["seed=1", "failed", *["–"] * 3]


def test_a_sweep_tells_its_jobs_goes_on_after_a_failure_and_ends_with_a_comparison(tmp_path):
    # Five completions a group do not divide eight rows: two of the four jobs are refused.
    command = [sys.executable, "-m", "concise_rl.train", "-m", "method=grpo,hapo", "trainer.num_generations=4,5"]
    command += ["trainer.per_device_train_batch_size=8", "trainer.max_steps=1", "trainer.max_completion_length=24"]
    command += ["evaluation.problems=3", "run.progress=false", f"hydra.sweep.dir={tmp_path}"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    said = ended.stdout
    assert ended.returncode == 2, said + ended.stderr
    assert f"sweep of 4 jobs in {tmp_path}" in said
    assert "job 3 of 4: method=hapo trainer.num_generations=4" in said
    assert ended.stderr.count("error: ") == 2
    assert "failed" in said
    assert f"comparison: {tmp_path / 'compare.html'}" in said
    assert (tmp_path / "compare.html").exists()
    (report,) = tmp_path.glob("2-hapo-chain_sum-*num_generations_4-*seed0/report.html")
    assert report.stat().st_size > 1000


def test_a_run_writes_down_each_start_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/concise-rl train", "method=hapo", "++trainer.hub_token=hf_x"])
    first = record_start(tmp_path, "a-run", step=0, ranks=2)
    again = record_start(tmp_path, "a-run", step=4, ranks=2)
    assert first["id"] == again["id"] == read_record(tmp_path)["id"]
    assert [start["step"] for start in again["starts"]] == [0, 4]
    assert again["starts"][0]["command"] == "concise-rl train method=hapo 'trainer.hub_token=***'"
    assert again["starts"][0]["versions"].keys() >= {"python", "torch", "transformers", "trl", "concise-rl"}
    assert hardware(2).keys() >= {"processor", "cores", "ranks"}
    assert record_start(tmp_path, "a-run", step=0, ranks=1)["id"] != first["id"], "a new run is another one"
    (tmp_path / "run.json").write_text("[" * 100_000)
    assert read_record(tmp_path) == {}
    assert without_secrets({"a": {"hub_token": "hf_x", "b": 1}, "hub_token": None}) == {
        "a": {"hub_token": "***", "b": 1}, "hub_token": None,
    }  # fmt: skip
    assert "hf_x" not in json.dumps(config.resolved(config.compose(["++trainer.hub_token=hf_x", "run.dir=x"])))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["/v/bin/concise-rl train", "seed=1"], "concise-rl train seed=1"),
        (["/v/site-packages/concise_rl/train.py", "seed=1"], "python -m concise_rl.train seed=1"),
        (["concise-rl", "method.shapers=[a,b]"], "concise-rl train 'method.shapers=[a,b]'"),
    ],
)
def test_the_command_is_one_that_can_be_given_again(arguments, shown):
    assert command_line(arguments) == shown
