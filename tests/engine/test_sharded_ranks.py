"""Two processes that share weights, gradients and optimizer out (FSDP2, ZeRO) are the experiment of one."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from .ranks import assert_one_experiment, launch


@pytest.mark.parametrize("layout", ["fsdp2", "zero2", "zero3"])
def test_one_rank_equals_two(tmp_path, one_rank, layout):
    if layout.startswith("zero"):
        pytest.importorskip("deepspeed")
    launch(tmp_path / "two", layout, "hapo")
    assert_one_experiment(one_rank("hapo"), tmp_path / "two", "hapo")


@pytest.mark.parametrize("layout", ["fsdp2", "zero2", "zero3"])
def test_a_step_that_is_not_finite_moves_nothing(tmp_path, layout):
    if layout.startswith("zero"):
        pytest.importorskip("deepspeed")
    out = tmp_path / "two"
    launch(out, layout, "grpo", "trainer.max_steps=3", "trainer.save_steps=1", "trainer.save_total_limit=3", "poison=1")
    assert [line["skipped_steps"] for line in json.loads((out / "metrics.json").read_text())] == [0, 1, 0]
    first, poisoned, last = (
        torch.cat([p.reshape(-1) for p in AutoModelForCausalLM.from_pretrained(out / f"checkpoint-{n}").parameters()])
        for n in (1, 2, 3)
    )
    assert torch.equal(first, poisoned)
    assert not torch.equal(poisoned, last)
    assert torch.isfinite(last).all()


# Ratios of whole rows take a second sweep, for which the gathered head must still be there; the reference has a head of
# its own; entropies count in the loss.
STEPS = 3
ALL_OF_IT = ("trainer.importance_sampling_level=sequence", "trainer.beta=0.05", "trainer.entropy_coef=0.01")
ALL_OF_IT += (f"trainer.max_steps={STEPS}", f"trainer.save_steps={STEPS}")


@pytest.fixture(scope="module")
def whole_head(tmp_path_factory):
    """What one process makes of the loss."""
    out = tmp_path_factory.mktemp("whole") / "one"
    launch(out, "one", "grpo", *ALL_OF_IT)
    return out


@pytest.mark.parametrize("layout", ["fsdp2", "zero3"])
def test_a_sharded_head_gives_the_loss_and_gradient_of_a_whole_one(tmp_path, whole_head, layout):
    if layout.startswith("zero"):
        pytest.importorskip("deepspeed")
    out = tmp_path / "two"
    launch(out, layout, "grpo", *ALL_OF_IT)
    expected, found = (json.loads((run / "metrics.json").read_text()) for run in (whole_head, out))
    assert len(expected) == STEPS
    for name in ("loss", "policy_loss", "entropy", "kl"):
        assert [step[name] for step in found] == pytest.approx([step[name] for step in expected], abs=2e-6), name
    one, two = (
        AutoModelForCausalLM.from_pretrained(run / f"checkpoint-{STEPS}").state_dict() for run in (whole_head, out)
    )
    assert max(float((two[name] - one[name]).abs().mean()) for name in one) < 1e-6
