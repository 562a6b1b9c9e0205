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
