"""Guards: steps that are not finite are skipped, collapse is told of, SIGTERM leaves a checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from concise_rl.commands.config import compose, guard_of
from concise_rl.commands.guarded import go_back
from concise_rl.engine import checkpoint
from concise_rl.engine.guards import RecordRollbacks, SkipNonFinite, WatchCollapse
from concise_rl.errors import UserError
from concise_rl.options import Guard

from .jobs import accelerate_launch, run_to_end


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


def test_an_entropy_that_is_seldom_known_delays_no_other_sign():
    """Steps without credit have no entropy, and a run that collapses has more and more of them."""
    lines = steps(accuracy=(0.8, 0.1))
    for line in lines[1:]:
        del line["entropy"]
    said, _ = watched(Guard(window=4), lines)
    assert [line.partition(":")[0] for line in said] == ["step 8"]
    assert "accuracy 80.0% at the start, 10.0% now" in said[0]


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


def test_a_resumed_run_compares_with_the_start_of_the_whole_run():
    lines = steps(accuracy=(0.8, 0.3))
    said: list[str] = []
    watch, state = WatchCollapse(Guard(), said.append, earlier=lines[:7]), TrainerState(global_step=8)
    watch.on_log(None, state, TrainerControl(), logs={"loss": 0.0} | lines[7])
    assert said == watched(Guard(), lines)[0]


def test_refilled_batches_are_judged_by_all_that_was_sampled():
    """Groups of mixed answers are half right whatever the policy does."""
    lines = [line | {"accuracy": 0.5, "sampled_accuracy": line["accuracy"]} for line in steps(accuracy=(0.8, 0.3))]
    assert watched(Guard(), lines)[0] == watched(Guard(), steps(accuracy=(0.8, 0.3)))[0]


def test_a_schedule_without_a_base_rate_is_refused():
    args = SimpleNamespace(learning_rate=1.0, lr_scheduler_type="reduce_lr_on_plateau")
    with pytest.raises(UserError, match=r"lr_scheduler_type=reduce_lr_on_plateau has none: use guard.action=stop"):
        RecordRollbacks(int, print).on_train_begin(args, None, None, lr_scheduler=SimpleNamespace())


SHORT = [
    "trainer.per_device_train_batch_size=8", "trainer.num_generations=4", "trainer.max_completion_length=48",
    "trainer.save_steps=2", "trainer.max_steps=6", "trainer.lr_scheduler_type=constant", "evaluation.problems=0",
    "run.progress=false", "guard.window=2", "guard.truncated=0",
]  # fmt: skip
"""Any share of truncated completions is a sign here: it comes with the fourth step, and after each rollback again."""


def run_short(folder: Path, *overrides: str, ranks: int = 1) -> tuple[str, list[dict], list[str]]:
    """What the run said, its metrics, and the lines of its rollouts."""
    launcher = [sys.executable] if ranks == 1 else accelerate_launch()
    said = run_to_end([*launcher, "-m", "concise_rl.train", *SHORT, *overrides, f"run.dir={folder}"], seconds=240)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return " ".join(said.split()), lines, (folder / "rollouts.jsonl").read_text().splitlines()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_collapse_goes_back_twice_and_then_ends_the_run(tmp_path: Path, ranks: int):
    run = tmp_path / "run"
    said, lines, rollouts = run_short(run, "guard.action=rollback", "trainer.learning_rate=1e-4", ranks=ranks)
    for k, rate in ((1, "5e-05"), (2, "2.5e-05")):
        assert f"rollback {k} of 2: on from {run / 'checkpoint-2'} at a learning rate of {rate}" in said
    assert said.count("of completions are cut off") == 3
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["rollbacks"] for line in lines] == [0, 0, 2, 2]
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-4, 1e-4, 2.5e-5, 2.5e-5])
    assert checkpoint.step_of(checkpoint.newest_complete(run, print)) == 4
    if ranks == 1:
        _, plain_lines, plain = run_short(tmp_path / "plain", "trainer.learning_rate=1e-4")
        # The third step samples what it sampled before: weights, history and random states are those of the checkpoint.
        assert rollouts[:3] == plain[:3]
        assert [line["loss"] for line in lines[:3]] == [line["loss"] for line in plain_lines[:3]]
        assert rollouts[3] != plain[3]


def test_a_run_killed_right_after_a_rollback_has_gone_back(make_trainer):
    """The checkpoint that it goes back to was saved before, and says 0 by its sealed facts."""
    save = ("trainer.save_strategy=steps", "trainer.save_steps=2")
    trainer, _ = make_trainer(*save)
    trainer.train()
    folder = Path(trainer.args.output_dir)
    session = SimpleNamespace(warn=pytest.fail, rewind=lambda step: None)
    assert go_back(folder, until=2, session=session, rollbacks=1) == folder / "checkpoint-2"
    resumed, _ = make_trainer(*save)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.rollbacks == 1
    assert resumed.optimizer.param_groups[0]["initial_lr"] == trainer.args.learning_rate / 2
    assert resumed.states == trainer.states


def test_a_run_without_an_old_enough_checkpoint_ends(tmp_path: Path):
    said, lines, _ = run_short(tmp_path / "run", "guard.action=rollback", "trainer.save_steps=4")
    assert "no complete checkpoint is 2 steps older: training ends here" in said
    assert len(lines) == 4


def test_a_vllm_engine_cannot_go_back():
    with pytest.raises(UserError, match=r"which a vLLM engine does not survive: use guard.action=stop"):
        guard_of(compose(["guard.action=rollback", "trainer.use_vllm=true"]))


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
    step = checkpoint.step_of(newest)
    assert f"SIGTERM: ended after step {step}; resume=auto goes on from step {step}" in " ".join(output.split())
