"""Guards: steps that are not finite are skipped, collapse is told of, SIGTERM leaves a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from concise_rl import checkpoint
from concise_rl.errors import UserError
from concise_rl.guards import SkipNonFinite, WatchCollapse
from concise_rl.options import Guard


class Poison(TrainerCallback):
    """Makes one gradient of these steps infinite, before any other callback sees it."""

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if state.global_step in self.steps:
            next(model.parameters()).grad[0, 0] = float("inf")


def test_a_step_that_is_not_finite_moves_nothing(make_trainer):
    trainer, seen = make_trainer("method=grpo", "trainer.max_steps=3")
    weights = []

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            weights.append(torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()]))

    skip = SkipNonFinite(2, lambda name, value: trainer._metrics["train"][name].append(value))
    for callback in (Poison({1}), skip, Keep()):
        trainer.add_callback(callback)
    trainer.train()
    assert [line["skipped_steps"] for line in seen.metrics] == [0, 1, 0]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert torch.isfinite(weights[2]).all()


def test_too_many_in_a_row_end_the_run_with_advice(make_trainer):
    trainer, _ = make_trainer("method=grpo", "trainer.max_steps=4")
    for callback in (Poison({1, 2}), SkipNonFinite(2, lambda name, value: None)):
        trainer.add_callback(callback)
    with pytest.raises(UserError, match="step 3: the gradient was not finite for 2 steps in a row: lower"):
        trainer.train()


def watched(guard: Guard, steps: list[dict[str, float]]) -> tuple[list[str], bool]:
    said: list[str] = []
    watch, control, state = WatchCollapse(guard, said.append), TrainerControl(), TrainerState()
    for step, logs in enumerate(steps, start=1):
        state.global_step = step
        watch.on_log(None, state, control, logs={"loss": 0.0} | logs)
    return said, control.should_training_stop


def steps(**changes: tuple[float, float]) -> list[dict[str, float]]:
    """Four steps at the first value of each metric, four at the second."""
    healthy = {"accuracy": (0.8, 0.8), "mean_tokens": (50, 30), "entropy": (0.2, 0.1), "truncated_frac": (0, 0)}
    ranges = healthy | changes
    return [{name: pair[k >= 4] for name, pair in ranges.items()} for k in range(8)]


def test_shorter_and_as_right_is_no_collapse():
    assert watched(Guard(action="stop"), steps()) == ([], False)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"accuracy": (0.8, 0.3)}, "step 8: accuracy 80.0% at the start, 30.0% now: weaken the length term"),
        ({"entropy": (0.2, 1e-6)}, "step 8: entropy 1.0e-06 nats"),
        ({"truncated_frac": (0.1, 1.0)}, "step 8: 100% of completions are cut off"),
        ({"mean_tokens": (50, 2), "accuracy": (0.8, 0.7)}, "step 8: mean tokens 50 at the start, 2 now"),
    ],
)
def test_each_collapse_is_told_once_and_can_end_the_run(changes, text):
    said, stopped = watched(Guard(), steps(**changes) * 1 + steps(**changes)[4:])
    assert len(said) == 1
    assert said[0].startswith(text)
    assert not stopped
    assert watched(Guard(action="stop"), steps(**changes))[1]


def test_sigterm_saves_and_asks_to_be_requeued(tmp_path: Path):
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "concise_rl.train",
        f"run.dir={run}",
        "run.progress=false",
        "evaluation.problems=0",
    ]
    command += ["trainer.max_steps=200", "trainer.save_steps=200", "trainer.per_device_train_batch_size=16"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
            assert job.poll() is None, job.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        job.send_signal(signal.SIGTERM)
        output, _ = job.communicate(timeout=60)
    assert job.returncode == 75, output
    newest = checkpoint.newest_complete(run, print)
    assert newest is not None
    assert f"SIGTERM: saved at step {checkpoint.step_of(newest)}; go on with resume=auto" in " ".join(output.split())
