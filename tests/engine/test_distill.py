"""CRISP: the loss is the divergence from a teacher that reads the instruction, and a resumed run has its teacher."""

from __future__ import annotations

import pytest
import torch

from concise_rl.commands.config import compose, distill_of
from concise_rl.errors import UserError

CRISP = ("method=grpo", "distill=crisp", "distill.instruction=1+", "trainer.max_completion_length=24")


def test_a_resumed_run_has_the_teacher_of_the_straight_one(make_trainer, tmp_path):
    more = ("distill.refresh=2", "trainer.max_steps=4", "trainer.save_strategy=steps", "trainer.save_steps=2")
    more = (*more, "trainer.learning_rate=1e-3")
    straight, recorder = make_trainer(*CRISP, *more)
    straight.train()
    assert all(line["kl_to_teacher"] > 0 for line in recorder.metrics)
    assert straight.teacher_step == 4
    resumed, _ = make_trainer(*CRISP, *more)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_teacher_that_reads_what_the_policy_reads_changes_nothing(make_trainer, monkeypatch):
    trainer, recorder = make_trainer(*CRISP, "distill.refresh=0", "trainer.max_steps=1")
    monkeypatch.setattr(trainer, "_instructed", lambda prompt: prompt)
    trainer.train()
    assert recorder.metrics[0]["kl_to_teacher"] == pytest.approx(0.0, abs=1e-6)
    assert recorder.metrics[0]["grad_norm"] == pytest.approx(0.0, abs=1e-5)


def test_what_would_have_no_effect_is_refused():
    with pytest.raises(UserError, match="the credit of method=hapo would have no effect"):
        distill_of(compose(["distill=crisp", "method=hapo"]))
    with pytest.raises(UserError, match="no KL term to a reference"):
        distill_of(compose([*CRISP, "trainer.beta=0.1"]))
    with pytest.raises(UserError, match=r"distill.instruction is empty"):
        distill_of(compose([*CRISP, "distill.instruction=' '"]))
    assert distill_of(compose(["method=grpo"])) is None
