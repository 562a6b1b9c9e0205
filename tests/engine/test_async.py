"""Sampling ahead: at staleness 0 the synchronous run; else known weights, corrected ratios, each rollout used once."""

from __future__ import annotations

import copy
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from benchmarks import witness
from concise_rl.commands.config import compose, distill_of, method_of, teaching_of, trainer_fields
from concise_rl.engine import checkpoint
from concise_rl.engine.async_sampler import layout, slots_of
from concise_rl.engine.async_trainer import AHEAD_FILE, check_async
from concise_rl.engine.order import EpochSampler
from concise_rl.engine.trainer import ConciseConfig
from concise_rl.errors import UserError
from concise_rl.methods.losses.importance import Importance
from concise_rl.reporting.run_log import read_metrics

from .conftest import SMALL
from .jobs import ROOT, kill_group, run_to_end, start
from .test_epochs import few_prompts

TIMES = ("step_time", "generate_seconds")
FAST = ("engine=async", "trainer.learning_rate=1e-3", "trainer.temperature=1.3")
SAVED = ("trainer.save_strategy=steps", "trainer.save_steps=1", "trainer.save_total_limit=null")


def outcome(trainer, recorder):
    lines = [{k: v for k, v in line.items() if k not in (*TIMES, "staleness")} for line in recorder.metrics]
    return lines, [record.completions for record in recorder.records], trainer.model.state_dict()


def assert_same(one, other):
    assert one[:2] == other[:2]
    assert all(torch.equal(weights, other[2][name]) for name, weights in one[2].items())


class AtStep(TrainerCallback):
    """Calls a function with the step that begins."""

    def __init__(self, act) -> None:
        self.act = act

    def on_step_begin(self, args, state, control, **_):
        self.act(state.global_step)


@pytest.mark.parametrize("method", ["hapo", "pear"])
def test_staleness_0_is_the_synchronous_run_bit_for_bit(make_trainer, method):
    runs = []
    for engine in (("engine=sync",), ("engine=async", "trainer.max_staleness=0")):
        trainer, recorder = make_trainer(f"method={method}", *FAST, *engine, "trainer.max_steps=4")
        trainer.train()
        runs.append(outcome(trainer, recorder))
    assert all(line["staleness"] == 0 for line in recorder.metrics)
    assert_same(*runs)


def test_rows_carry_the_version_that_sampled_them_and_its_log_probs(make_trainer, monkeypatch):
    trainer, recorder = make_trainer(*FAST, "trainer.max_staleness=2", "trainer.max_steps=5")
    weights, rows = {}, {}
    trainer.add_callback(AtStep(lambda step: weights.update({step: copy.deepcopy(trainer.model.state_dict())})))
    collect = trainer._collect

    def collected(group_size):
        rows[trainer.state.global_step] = trainer.generation.samples
        return collect(group_size)

    monkeypatch.setattr(trainer, "_collect", collected)
    trainer.train()
    assert [line["staleness"] for line in recorder.metrics] == [0, 1, 2, 2, 2]
    for step, samples in rows.items():
        assert {sample.rollout.version for sample in samples} == {max(0, step - 2)}
        if step:  # the first step's are the trainer's own
            trainer.model.load_state_dict(weights[max(0, step - 2)])
            assert distance(trainer, samples) < 1e-4
    trainer.model.load_state_dict(weights[4])
    assert distance(trainer, rows[4]) > 1e-3, "the weights that learned would not have given these log-probs"


@torch.no_grad()
def distance(trainer, samples) -> float:
    """The largest difference of a row's own log-probs from those of the trainer's weights."""
    model = trainer.model.eval()
    return max(float(off_by(model, s.prompt_ids, s.rollout, trainer.temperature).max()) for s in samples)


@torch.no_grad()
def off_by(model, prompt_ids, rollout, temperature: float) -> torch.Tensor:
    """(T,), how far a row's own log-probs are from those of the model's weights, in nats."""
    ids = list(rollout.token_ids)
    logits = model(input_ids=torch.tensor([[*prompt_ids, *ids]])).logits[0, -len(ids) - 1 : -1]
    logprobs = torch.log_softmax(logits / temperature, dim=-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    return (logprobs - torch.tensor(rollout.sampler_logprobs)).abs()


def test_a_resumed_run_uses_what_was_sampled_ahead(make_trainer):
    """Over the borders of epochs of three steps, with two generations on order."""
    rules = (*FAST, *SAVED, "trainer.max_staleness=2", "trainer.max_steps=7")
    whole, seen = make_trainer(*rules, train_dataset=few_prompts())
    whole.train()
    drawn = [key for record in seen.records for key in record.batch.prompt_keys]
    assert len(set(drawn[:12])) == len(set(drawn[12:24])) == 12, "each prompt once an epoch"
    folder = Path(whole.args.output_dir)
    for step in (2, 3, 6):
        resumed, again = make_trainer(*rules, train_dataset=few_prompts())
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        lines, completions, weights = outcome(whole, seen)
        assert_same((lines[step:], completions[step:], weights), outcome(resumed, again))


def test_a_checkpoint_of_another_staleness_or_a_damaged_one_is_refused(make_trainer):
    rules = (*FAST, *SAVED, "trainer.max_steps=2")
    trainer, _ = make_trainer(*rules)
    trainer.train()
    saved = Path(trainer.args.output_dir) / "checkpoint-1"
    with pytest.raises(UserError, match=r"max_staleness=None, .* with 1: rows that were sampled ahead would be lost"):
        make_trainer(*rules, "engine=sync")[0].train(resume_from_checkpoint=str(saved))
    (saved / AHEAD_FILE).write_text('[{"step": 1}]')
    with pytest.raises(UserError, match=AHEAD_FILE):
        make_trainer(*rules)[0].train(resume_from_checkpoint=str(saved))


def test_a_sampler_that_is_killed_ends_the_run_in_one_line(make_trainer):
    trainer, recorder = make_trainer(*FAST, "trainer.max_steps=4")
    trainer.add_callback(AtStep(lambda step: step == 2 and trainer._sampler._process.kill()))
    with pytest.raises(UserError, match=r"^the sampler process \d+ was ended by signal 9 \(SIGKILL\).*resume=auto$"):
        trainer.train()
    assert len(recorder.metrics) >= 1


def test_what_cannot_be_sampled_is_said_by_the_trainer(make_trainer):
    trainer, _ = make_trainer(*FAST)
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="logits are not finite"):
        trainer.train()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_trainer_that_is_killed_takes_its_sampler_along_and_nothing_is_lost(tmp_path):
    run, steps = tmp_path / "run", 8
    command = [
        sys.executable, "-m", "concise_rl.train", "method=grpo", *SMALL, *FAST, f"run.dir={run}",
        f"method.shapers=[{{path: {ROOT}/benchmarks/witness.py:Witness}}]", "evaluation.problems=0",
        "data.train_size=12", f"trainer.max_steps={steps}", "trainer.save_strategy=steps", "trainer.save_steps=2",
    ]  # fmt: skip
    with start(command) as job:
        try:
            while not checkpoint.steps(run) and job.poll() is None:
                time.sleep(0.01)
            samplers = [
                child for child in children_of(job.pid)
                if b"async_sampler" in Path(f"/proc/{child}/cmdline").read_bytes()
            ]  # fmt: skip
            assert samplers
            os.kill(job.pid, signal.SIGKILL)
            job.communicate()
            deadline = time.monotonic() + 20
            while any(Path(f"/proc/{child}").exists() for child in samplers) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not any(Path(f"/proc/{child}").exists() for child in samplers)
        finally:
            kill_group(job.pid)
    run_to_end([*command, "resume=auto"], 240)
    assert witness.faults(run, run / f"checkpoint-{steps}", steps, prompts=12) == []
    assert [line["staleness"] for line in read_metrics(run)] == [0, *[1] * (steps - 1)]


def test_a_scheduled_limit_is_that_of_the_step_that_uses_the_rows(make_trainer):
    limits = "trainer.max_completion_length={linear: {start: 10, end: 40, steps: 3}}"
    trainer, recorder = make_trainer(*FAST, limits, "trainer.max_steps=4", "trainer.max_staleness=2")
    trainer.train()
    assert [int(record.batch.limits.max()) for record in recorder.records] == [10, 20, 30, 40]
    assert all(bool((record.batch.lengths <= record.batch.limits).all()) for record in recorder.records)


def test_prompts_are_foreseen_as_the_epochs_draw_them():
    order = EpochSampler(range(11), mini_repeat_count=3, batch_size=4, repeat_count=2, shuffle=True, seed=7)
    for epoch in range(3):
        order.set_epoch(epoch)
        drawn = list(order)
        for place in range(2):  # 11 prompts make two generations of four
            asked = drawn[place * 24 : place * 24 + 12]
            assert order.prompts_of(2 * epoch + place) == asked[::3]


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_importance_weights_are_trls(make_trainer, monkeypatch, mode):
    """TRL's own code makes the ratios that it would of vLLM's rows; the bounds are narrow, so that they bite."""
    bounds = ("trainer.vllm_importance_sampling_clip_min=0.995", "trainer.vllm_importance_sampling_clip_max=1.005")
    trainer, recorder = make_trainer(*FAST, f"trainer.vllm_importance_sampling_mode={mode}", *bounds)
    outputs, made, generate = [], trainer._generate_and_score_completions, trainer._generate

    def generated(prompts):
        rows = generate(prompts)
        trainer.use_vllm = trainer.state.global_step == 1
        return rows

    def through_trl(inputs):
        outputs.append(made(inputs))
        trainer.use_vllm = False
        for name in Importance.LOGGED:
            trainer._metrics["train"].pop(name, None)  # TRL's own
        return {k: v for k, v in outputs[-1].items() if k not in ("importance_sampling_ratio", "old_per_token_logps")}

    monkeypatch.setattr(trainer, "_generate", generated)
    monkeypatch.setattr(trainer, "_generate_and_score_completions", through_trl)
    trainer.train()
    first, second = outputs
    assert "sampling_per_token_logps" not in first, "rows of the newest weights need no correction"
    old, mask, theirs = second["old_per_token_logps"], second["completion_mask"], second["importance_sampling_ratio"]
    ours = Importance(mode, 0.995, 1.005).weight(old, second["sampling_per_token_logps"], mask)
    torch.testing.assert_close(ours * mask, theirs * mask, rtol=0, atol=1e-6)
    assert len(set(theirs[mask.bool()] if "token" in mode else theirs[:, 0])) > 1
    logged = recorder.metrics[1]["sampling/importance_sampling_ratio/mean"]
    rows = (second["advantages"] != 0).float()[:, None] * mask
    assert logged == pytest.approx(float((theirs * rows).sum() / rows.sum()), abs=1e-5)


def test_the_loss_takes_the_weights_in_one_sweep_and_in_two(make_trainer):
    grads = []
    for fused in (True, False):
        trainer, _ = make_trainer(*FAST, "method=grpo", "trainer.max_steps=2")
        trainer._fuse_loss = fused
        trainer.train()
        grads.append({name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None} or
                     trainer.model.state_dict())  # fmt: skip
    for name, one in grads[0].items():
        torch.testing.assert_close(one, grads[1][name], rtol=1e-3, atol=2e-5)


def test_a_slot_holds_every_tensor_once_and_tied_ones_together(make_trainer, tmp_path):
    model = make_trainer("engine=sync")[0].model
    places, size = layout(model)
    assert places["lm_head.weight"] == places["model.embed_tokens.weight"], "tied"
    held = {id(t): t.nbytes for _, t in [*model.named_parameters(), *model.named_buffers()]}
    assert sum(held.values()) <= size <= sum(held.values()) + 64 * len(held)
    with open(tmp_path / "memory", "w+b") as file:
        file.truncate(2 * size)
        slots = slots_of(file.fileno(), places, size, 2)
    for name, tensor in model.named_parameters():
        slots[1][name].copy_(tensor.detach())
    assert all(torch.equal(slots[1][name], tensor) for name, tensor in model.named_parameters())
    assert not slots[0]["lm_head.weight"].any()


REFUSED = {
    ("trainer.max_staleness=-1",): "max_staleness=-1: give 0 or more",
    ("trainer.min_p=0.1",): r"trainer\.min_p: the sampler process has our own sampling loop alone",
    ("trainer.bf16=true",): "bf16 or fp16: ",
    ("trainer.num_iterations=2",): "several steps a generation: set num_iterations=1",
    ("trainer.steps_per_generation=2",): "several steps a generation: ",
    ("trainer.ignore_data_skip=true",): r"trainer\.ignore_data_skip: ",
    ("trainer.loss_type=vespo",): "loss_type=vespo: ",
    ("method=e2h",): "the curriculum .*: it decides by verdicts that are not there yet; take a method without",
    ("method=thinking_budget",): "the sampler .*: it asks for tokens in turns",
    ("zero_variance=refill",): "zero_variance=refill: it decides by verdicts that are not there yet; use drop",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_cannot_be_sampled_ahead_is_refused_before_a_model_loads(tmp_path, overrides):
    config = compose([*SMALL, "engine=async", *overrides])
    args = ConciseConfig(output_dir=str(tmp_path), **trainer_fields(config))
    with pytest.raises(UserError, match=REFUSED[overrides]) as refused:
        check_async(args, method_of(config), teaching_of(config), adapter=False)
    assert re.match(r"trainer\.max_staleness=-?\d", str(refused.value))
    assert "\n" not in str(refused.value)


def test_adapters_distilling_and_tools_are_refused(make_trainer, tmp_path):
    config = compose([*SMALL, "engine=async"])
    args = ConciseConfig(output_dir=str(tmp_path), **trainer_fields(config))
    with pytest.raises(UserError, match=r"an adapter: .* peft=none"):
        check_async(args, method_of(config), teaching_of(config), adapter=True)
    with pytest.raises(UserError, match=r"weights 1 steps old: set engine=sync"):
        distill_of(compose(["engine=async", "method=grpo", "distill=crisp"]))
    with pytest.raises(UserError, match=r"rollout_func makes rows that cannot be sampled ahead"):
        make_trainer("engine=async", rollout_func=lambda prompts, trainer: {})
