"""Resumed equals never having stopped: the same metrics, rollouts, history and weights, bit for bit on CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from concise_rl.engine import checkpoint

COMMON = [
    "trainer.per_device_train_batch_size=16",
    "trainer.num_generations=4",
    "trainer.max_completion_length=48",
    "trainer.lr_scheduler_type=constant",
    "trainer.save_steps=3",
    "evaluation.problems=16",
]
TIMES = ("time", "step_time", "generate_seconds", "training_seconds", "seconds")


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "concise_rl.train", *COMMON, f"run.dir={folder}", *overrides],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """One run of 6 steps; one of 3, whose next checkpoint is then damaged, resumed to 6."""
    whole, parted = tmp_path_factory.mktemp("runs") / "whole", tmp_path_factory.mktemp("runs") / "parted"
    done = train(whole, "trainer.max_steps=6")
    assert done.returncode == 0, done.stderr
    assert train(parted, "trainer.max_steps=3").returncode == 0
    half_written = parted / "checkpoint-5"
    half_written.mkdir()
    (half_written / "model.safetensors").write_bytes(b"half")
    resumed = train(parted, "trainer.max_steps=6", "resume=auto")
    assert resumed.returncode == 0, resumed.stderr
    return whole, parted, resumed.stdout + resumed.stderr


def test_metrics_and_rollouts_are_the_same(runs):
    whole, parted, _ = runs
    assert len(metrics(whole)) == 6
    assert metrics(whole) == metrics(parted)
    assert (whole / "rollouts.jsonl").read_text() == (parted / "rollouts.jsonl").read_text()


def test_weights_and_history_are_the_same(runs):
    whole, parted, _ = runs
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole, parted))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    states = [checkpoint.load_state(folder / "checkpoint-6")[0]["shaper.hapo"] for folder in (whole, parted)]
    assert states[0] == states[1]


def test_a_half_written_checkpoint_is_skipped_by_name(runs):
    assert "checkpoint-5 is skipped" in " ".join(runs[2].split())


def test_the_run_folder_is_complete(runs):
    whole, _, _ = runs
    for name in ("config.json", "metrics.jsonl", "rollouts.jsonl", "summary.json", "training.png", "report.html"):
        assert (whole / name).stat().st_size > 0, name
    summary = json.loads((whole / "summary.json").read_text())
    for side in ("before", "after"):
        assert {"accuracy", "accuracy_interval", "mean_tokens", "mean_tokens_interval", "problems"} <= summary[
            side
        ].keys()
    config = json.loads((whole / "config.json").read_text())
    assert list(config["shaper"]) == ["hapo"], "components that the run does not use are left out"


def test_a_folder_with_a_run_is_not_overwritten(runs):
    whole, _, _ = runs
    before = (whole / "metrics.jsonl").read_bytes()
    done = train(whole, "trainer.max_steps=1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "already holds a run: go on with resume=auto" in done.stderr
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_another_method_does_not_take_over_a_history(runs):
    _, parted, _ = runs
    done = train(parted, "trainer.max_steps=8", "resume=auto", "method=kimi")
    assert done.returncode == 2
    assert 'method.name="kimi", ' in done.stderr
    assert 'was trained with "hapo": the state is another method\'s' in done.stderr
