"""`concise-rl tune` from the command line: sampled, selected, tuned, gone on with; what the run folder then holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from concise_rl.commands.tune import steps_of

SMALL = ["evaluation.problems=12", "evaluation.samples=2", "evaluation.max_new_tokens=40"]


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "concise_rl.cli", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=env)


def test_a_tuned_model_is_a_run(tmp_path):
    select = ["select", "selector=on_policy_sft", "stores=s.jsonl", "out=rows.jsonl"]
    for arguments in (["sample", *SMALL, "store=s.jsonl"], select):
        done = cli(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
    tune = ["tune", "rows=rows.jsonl", "run.dir=run", "evaluation.problems=4", "evaluation.max_new_tokens=40"]
    tune += ["tuning.per_device_train_batch_size=4", "tuning.save_steps=1", "run.progress=false"]
    done = cli(tmp_path, *tune, "tuning.max_steps=2")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert {"config.json", "summary.json", "metrics.jsonl", "report.html", "model", "checkpoint-2", "run.json"} <= {
        path.name for path in run.iterdir()
    }
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 2
    assert summary["sampled_tokens"] > summary["trained_tokens"] > 0
    assert "recipe `sft`" in (run / "model" / "README.md").read_text()
    again = cli(tmp_path, *tune, "tuning.max_steps=2")
    assert (again.returncode, "already holds a run" in again.stderr) == (2, True)
    on = cli(tmp_path, *tune, "tuning.max_steps=3", "resume=auto")
    assert on.returncode == 0, on.stderr
    assert "going on from step 2" in on.stdout
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    other = cli(tmp_path, *tune, "recipe=dpo", "resume=auto")
    assert other.returncode == 2
    assert "recipe=dpo needs prompt, chosen, rejected" in other.stderr
    merged = cli(tmp_path, "merge", "embedded:tiny", "run/model", "--out", "merged", "--weight", "0.5")
    assert merged.returncode == 0, merged.stderr
    assert merged.stdout.startswith("merged: 38 tensors") or "tensors, 0.5 x embedded:tiny" in merged.stdout


def test_steps_of_a_part_of_an_epoch_are_counted():
    args = SimpleNamespace(max_steps=-1, train_batch_size=4, gradient_accumulation_steps=2, world_size=1)
    counted = [steps_of(SimpleNamespace(**vars(args), num_train_epochs=epochs), rows=33) for epochs in (0.5, 1, 1.5)]
    assert counted == [3, 5, 8]
