"""What `concise-rl replay` makes of a run's stored rollouts is what training made of them, on every shelf."""

from __future__ import annotations

import pytest
import torch

from concise_rl.evaluation import replay
from concise_rl.methods import load_method
from concise_rl.reporting.run_log import RunLog, read_rollouts

METHODS = ["hapo", "leash", "short_rl", "deep_compress", "canon_length", "scalerl", "gfpo", "alp", "ddca", "toggle"]


@pytest.mark.parametrize("name", METHODS)
def test_rewards_and_credits_come_out_again(make_trainer, tmp_path, name):
    trainer, seen = make_trainer(f"method={name}", "trainer.num_generations=4", "trainer.temperature=1.3")
    trainer.sinks.append(RunLog(tmp_path / "log"))
    trainer.train()
    steps = list(read_rollouts(tmp_path / "log"))
    # What a filter left out in training is left out again by the filter, not by what it left.
    batches = [(step.batch.replace(counts=step.batch.scorable), None) for step in steps]
    rows = replay(batches, {name: load_method(name)}).rows
    reward = torch.cat([record.reward for record in seen.records])
    credit = torch.cat([record.credit for record in seen.records])
    assert [row["shaped_reward"] for row in rows] == reward.tolist()
    assert [row["credit"] for row in rows] == credit.tolist()
    assert len(rows) == 2 * 16
