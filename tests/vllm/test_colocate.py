"""vLLM in the trainer's process: it samples from the weights that are trained, and what it says reaches the loss."""

from __future__ import annotations

import math

import pytest
import torch

from concise_rl.engine import checkpoint

SAME = 1e-4
"""Nats between the log-probs of vLLM and those of the trainer, both in float32."""


def trained(trainer):
    trainer.train()
    assert all(math.isfinite(log["loss"]) for log in trainer.state.log_history if "loss" in log)
    return trainer


def test_every_sync_hands_over_the_weights(make_trainer):
    trainer, seen = make_trainer("method=hapo", "trainer.max_steps=3")
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    assert max(trained(trainer).gaps()) < SAME
    assert len(trainer.gaps()) == len(seen.records) == 3
    assert any(not torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())
    assert any(record.batch.correct.any() for record in seen.records), "vLLM reads the embedded model as it is"


def test_without_the_sync_they_would_differ(make_trainer, monkeypatch):
    trainer, _ = make_trainer("method=grpo")
    monkeypatch.setattr(trainer.vllm_generation, "sync_weights", lambda: None)
    first, second = trained(trainer).gaps()
    assert first < SAME < 10 * SAME < second


def test_entropies_and_old_logprobs_are_those_of_one_pass(make_trainer):
    trainer, seen = make_trainer("method=pear", "trainer.max_steps=1")
    assert max(trained(trainer).gaps()) < SAME
    assert (seen.records[0].batch.think_entropy > 0).any()


def test_an_adapter_is_merged_for_the_engine(make_trainer):
    pytest.importorskip("peft")
    trainer, _ = make_trainer("method=grpo", "peft=lora", "peft.r=4")
    assert max(trained(trainer).gaps()) < SAME
    merged = [m for m in trainer.model.modules() if getattr(m, "merged", False)]
    assert not merged, "the trainer's own adapter stays apart"


def test_a_refill_samples_whole_rows_with_masks(make_trainer):
    budget = ("sampler.thinking_budget.budget=10", "sampler.thinking_budget.words=So")
    trainer, seen = make_trainer("method=thinking_budget", "zero_variance=refill", *budget)
    assert max(trained(trainer).gaps()) < SAME
    for output, record in zip(trainer.written, seen.records, strict=True):
        closed = [n for n, finish in enumerate(record.finishes) if finish == "budget"]
        assert closed
        assert (output["completion_mask"] * output["tool_mask"]).sum(dim=1).tolist() == (
            record.batch.lengths * record.batch.counts
        ).tolist()


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("forced_interruption", ("sampler.forced_interruption.low=4", "sampler.forced_interruption.high=12")),
        ("s_grpo", ()),
    ],
)
def test_samplers_continue_what_vllm_began(make_trainer, method, fields):
    trainer, seen = make_trainer(f"method={method}", "trainer.max_steps=1", *fields)
    assert max(trained(trainer).gaps()) < SAME
    assert int(seen.records[0].batch.lengths.max()) <= 48


def test_what_the_sampler_drew_itself_has_no_ratio(make_trainer):
    trainer, _ = make_trainer("method=adaptthink", "sampler.adaptthink.think_start='<think>'", "trainer.max_steps=1")
    (output,) = trained(trainer).written
    ratio = output["importance_sampling_ratio"]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-3, rtol=0)
    assert output["sampling_per_token_logps"][:, 0].tolist() == pytest.approx([math.log(0.5)] * 16)
    assert torch.isfinite(output["sampling_per_token_logps"]).all()


@pytest.mark.parametrize("mode", ["token_truncate", "sequence_mask"])
def test_another_precision_is_corrected_by_its_ratio(make_trainer, monkeypatch, mode):
    clip = {"token_truncate": 1.002, "sequence_mask": 1.5}[mode]
    trainer, _ = make_trainer(
        "method=grpo", "trainer.max_steps=1", f"trainer.vllm_importance_sampling_mode={mode}",
        f"trainer.vllm_importance_sampling_clip_max={clip}", dtype="bfloat16",
    )  # fmt: skip
    if mode == "sequence_mask":  # how far rounding takes a row differs by run: every second one goes beyond the clip
        generate = trainer.vllm_generation.generate
        monkeypatch.setattr(trainer.vllm_generation, "generate", lambda **asked: unlikely_rows(generate(**asked)))
    (output,) = trained(trainer).written
    mask = output["completion_mask"].bool()
    gap_NT = (output["old_per_token_logps"] - output["sampling_per_token_logps"]) * mask
    if mode == "token_truncate":
        expected = gap_NT.exp().clamp(max=clip)
    else:
        exact = gap_NT.sum(dim=1, keepdim=True).exp()
        expected = exact.masked_fill(exact > clip, 0.0)
        assert int((expected == 0).sum()) == len(expected) // 2
    ratio = output["importance_sampling_ratio"]
    torch.testing.assert_close(ratio, expected)
    assert (ratio - 1).abs().max() > 1e-4
    torch.testing.assert_close(trainer._credit(output), output["advantages"][:, None] * ratio)


def unlikely_rows(generated):
    """What TRL's vLLM gives, with the first token of every second row a nat less likely."""
    prompts, completions, logprobs, *rest = generated
    for row in logprobs[::2]:
        row[0] = [row[0][0] - 1, *row[0][1:]]
    return (prompts, completions, logprobs, *rest)


def test_a_resumed_run_samples_from_the_weights_of_its_checkpoint(make_trainer, tmp_path):
    trainer, _ = make_trainer("method=hapo", "trainer.save_strategy=steps", "trainer.save_steps=1")
    trained(trainer)
    remembered = checkpoint.load_state(tmp_path / "run" / "checkpoint-2")[0]
    resumed, seen = make_trainer("method=hapo", "trainer.max_steps=3", "trainer.save_strategy=no")
    resumed.train(str(tmp_path / "run" / "checkpoint-2"))
    assert [record.batch.step for record in seen.records] == [2]
    assert resumed.gaps()[0] < SAME
    assert len(resumed.states["shaper.hapo"]) > len(remembered["shaper.hapo"]) > 0
