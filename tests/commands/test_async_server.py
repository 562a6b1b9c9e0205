"""`concise-rl train engine=async_server`, from the command line to the report, with a server in the run's process."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmarks import witness
from concise_rl.commands.async_server import served_by
from concise_rl.commands.config import compose, guard_of, method_of, teaching_of, trainer_fields
from concise_rl.engine import checkpoint
from concise_rl.engine.async_trainer import check_async
from concise_rl.engine.trainer import ConciseConfig
from concise_rl.errors import UserError
from concise_rl.reporting.run_log import read_metrics, read_validation
from tests.engine.jobs import ROOT, kill_group, run_to_end, start

DRIVER = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from concise_rl.commands import train
from tests.engine.test_async_worker import Server

server, build = Server(), train.build_server_trainer
train.build_server_trainer = lambda *a, **k: build(*a, **k, generate=server, weight_transfer=server)
train.main()
"""

SMALL = (
    "engine=async_server", "trainer.per_device_train_batch_size=16", "trainer.num_generations=4",
    "trainer.max_completion_length=48", "trainer.temperature=1.3", "data.train_size=12", "trainer.save_steps=1",
)  # fmt: skip


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-c", DRIVER, *SMALL, "run.progress=false", f"run.dir={folder}", *overrides]


def test_a_run_trains_evaluates_saves_and_goes_on(tmp_path):
    watched = ("evaluation.problems=8", "evaluation.every=2", "evaluation.every_problems=4")
    folder = tmp_path / "run"
    said = run_to_end(command(folder, *watched, "trainer.max_steps=3"), 240)
    assert "after training" in said
    assert json.loads((folder / "model" / "config.json").read_text()).get("_attn_implementation") is None
    run_to_end(command(folder, *watched, "trainer.max_steps=5", f"resume={folder}/checkpoint-2"), 240)
    metrics = read_metrics(folder)
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5]
    assert 1 <= max(line["staleness"] for line in metrics) <= 2
    assert [line["step"] for line in read_validation(folder)] == [0, 2, 4]


def test_a_run_that_is_killed_loses_no_rollout_and_uses_none_twice(tmp_path):
    run, steps = tmp_path / "run", 8
    own = (
        "method=grpo", "trainer.loss_type=bnpo", f"method.shapers=[{{path: {ROOT}/benchmarks/witness.py:Witness}}]",
        "evaluation.problems=0", f"trainer.max_steps={steps}", "trainer.save_steps=2",
    )  # fmt: skip
    with start(command(run, *own)) as job:
        try:
            while not checkpoint.steps(run) and job.poll() is None:
                time.sleep(0.01)
            os.kill(job.pid, signal.SIGKILL)
            job.communicate()
        finally:
            kill_group(job.pid)
    assert checkpoint.steps(run)[-1] < steps
    run_to_end(command(run, *own, "resume=auto"), 240)
    assert witness.faults(run, run / f"checkpoint-{steps}", steps, prompts=12) == []


REFUSED = {
    ("method=hapo", "trainer.beta=0.01"): "trainer.beta=0.01, which it has not: set trainer.beta=0",
    ("method=hapo", "trainer.num_iterations=2"): "trainer.num_iterations=2, which it has not: leave it out",
    ("method=hapo", "trainer.use_vllm=true"): "trainer.use_vllm=True, which it has not: leave it out",
    ("method=hapo", "trainer.max_staleness=0"): "max_staleness=0: its loader is a batch ahead; give 1",
    ("method=cispo",): "loss_type=cispo: choose bnpo, dapo, grpo or dr_grpo",
    ("method=pear",): "answer_entropy, think_entropy: that takes a forward pass",
    ("method=e2h",): "the curriculum E2h: it decides by verdicts",
    ("method=hapo", "peft=lora"): "engine=async_server hands all weights over, not an adapter: set peft=none",
    ("method=hapo", "model.attn_implementation=eager"): "model.attn_implementation=eager: .*; leave it out",
    ("method=hapo", "zero_variance=refill"): "zero_variance=refill: .*; use drop",
}


def served(tmp_path: Path, *overrides: str):
    config = compose([*SMALL, *overrides])
    args = ConciseConfig(output_dir=str(tmp_path), **trainer_fields(config))
    check_async(args, method_of(config), teaching_of(config), adapter=False)
    return served_by(config, args, method_of(config), teaching_of(config))


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_has_no_place_there_is_refused_before_a_model_loads(tmp_path, overrides):
    with pytest.raises(UserError, match=REFUSED[overrides]) as refused:
        served(tmp_path, *overrides)
    assert "\n" not in str(refused.value)


def test_the_settings_of_a_command_reach_trls_trainer(tmp_path):
    own, method = served(tmp_path, "method=dapo", "trainer.vllm_server_base_url=http://here:1", "trainer.top_p=0.9")
    assert (own.epsilon_high, own.top_p, own.vllm_server_base_url) == (0.28, 0.9, "http://here:1")
    assert (own.max_staleness, own.lr_scheduler_type, own.token_budget) == (2, "linear", 0)
    assert method.loss == {"loss_type": "dapo"}


def test_a_rollback_and_the_synchronous_trainer_are_refused(tmp_path):
    with pytest.raises(UserError, match=re.escape("guard.action=rollback rebuilds the trainer")):
        guard_of(compose(["engine=async_server", "guard.action=rollback"]))
