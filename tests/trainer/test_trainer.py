"""Beyond the algorithm: one forward for signals, no idle rows, and an evaluation that moves nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from concise_rl.config import compose, method_names
from concise_rl.errors import UserError
from concise_rl.history import History
from concise_rl.loading import load_model, lora
from concise_rl.scoring import score_ragged
from concise_rl.shapers import Shaped, StatelessShaper
from concise_rl.trainer import ConciseTrainer


@pytest.mark.parametrize("method", method_names())
def test_every_method_trains_a_step(make_trainer, method):
    trainer, seen = make_trainer(f"method={method}")
    start = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    record = seen.records[0]
    assert record.batch.n_rows == 16
    assert record.batch.group_size == 4
    assert len(seen.metrics) == 2
    assert {"accuracy", "mean_tokens", "wiped_correct_frac", "loss", "grad_norm"} <= seen.metrics[0].keys()
    credited = any(bool((r.credit != 0).any()) for r in seen.records)
    moved = any(not torch.equal(w, start[name]) for name, w in trainer.model.state_dict().items())
    assert moved == credited


@pytest.mark.parametrize(("method", "passes"), [("hapo", 0), ("canon_length", 0), ("pear", 1), ("canon_entropy", 1)])
def test_a_forward_for_signals_only_where_a_method_asks(make_trainer, monkeypatch, method, passes):
    trainer, seen = make_trainer(f"method={method}", "trainer.max_steps=1")
    without_gradient = []
    scoring = ConciseTrainer._get_per_token_logps_and_entropies

    def count(self, *args, **kwargs):
        without_gradient.append(not torch.is_grad_enabled())
        return scoring(self, *args, **kwargs)

    monkeypatch.setattr(ConciseTrainer, "_get_per_token_logps_and_entropies", count)
    trainer.train()
    assert sum(without_gradient) == passes
    assert (seen.records[0].batch.mean_entropy is not None) == (method == "canon_entropy")
    assert (seen.records[0].batch.think_entropy is not None) == (method == "pear")


def test_the_pass_for_signals_also_gives_the_old_logprobs_when_updates_lag(make_trainer, monkeypatch):
    # Two updates a generation: TRL needs old log-probs, PEAR needs entropies, one pass must serve both.
    trainer, _ = make_trainer("method=pear", "trainer.num_iterations=2", "trainer.max_steps=2")
    without_gradient = []
    scoring = ConciseTrainer._get_per_token_logps_and_entropies

    def count(self, *args, **kwargs):
        without_gradient.append(not torch.is_grad_enabled())
        return scoring(self, *args, **kwargs)

    monkeypatch.setattr(ConciseTrainer, "_get_per_token_logps_and_entropies", count)
    trainer.train()
    assert sum(without_gradient) == 1


def test_entropies_are_those_of_the_sampling_policy(make_trainer):
    trainer, seen = make_trainer("method=canon_entropy", "trainer.max_steps=1")
    trainer.needs |= {"entropies", "logprobs"}
    policy = load_model(compose([]).model).eval()
    trainer.train()
    record = seen.records[0]
    ids = trainer._tokenizer(record.prompts[0])["input_ids"]
    said = trainer._completion_ids[0]
    with torch.no_grad():
        logprobs = policy(input_ids=torch.tensor([[*ids, *said]])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    assert_close(record.batch.entropies[0, : len(said)], entropy, rtol=1e-4, atol=1e-5)
    assert_close(record.batch.logprobs[0, : len(said)], logprobs[range(len(said)), said], rtol=1e-4, atol=1e-5)
    assert record.batch.mean_entropy[0] == pytest.approx(float(entropy.mean()), abs=1e-5)


def test_evaluation_does_not_move_the_history(make_trainer):
    trainer, _ = make_trainer("method=hapo", "trainer.max_steps=1")
    trainer.train()
    (before,) = copy.deepcopy(trainer.shaper_state)
    assert isinstance(before, History)
    assert len(before) > 0
    trainer.args.per_device_eval_batch_size = 8
    trainer.num_generations_eval = 4
    trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))
    assert trainer.shaper_state[0] == before


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo"])
@pytest.mark.parametrize("old", [False, True])
def test_idle_rows_and_padding_left_out_change_no_gradient(make_trainer, loss_type, old):
    trainer, _ = make_trainer(
        "method=grpo", f"trainer.loss_type={loss_type}", *(["trainer.epsilon_high=3"] if loss_type == "cispo" else [])
    )
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 9, 1, 12, 7, 5])
    mask = (torch.arange(12) < lengths[:, None]).long()
    credit = torch.tensor([0.0, 1.3, -0.4, 0.0, 0.7, 0.0])
    inputs = {
        "prompt_ids": torch.randint(10, 60, (6, 4), generator=generator),
        "prompt_mask": torch.ones(6, 4, dtype=torch.long),
        "completion_ids": torch.randint(10, 60, (6, 12), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": credit,
        "num_items_in_batch": mask.sum(),
    }
    if old:
        inputs["old_per_token_logps"] = -3 * torch.rand(6, 12, generator=generator) - 100 * (credit == 0)[:, None]
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()

    def gradient(lean: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        trainer.model.zero_grad()
        given = dict(inputs)
        if not lean:
            trainer._idle_rows = lambda _: None
            if old:  # the plain path overflows to inf * 0 where an idle row's ratio does; that is the trap avoided
                given["old_per_token_logps"] = inputs["old_per_token_logps"].clamp(min=-3)
        else:
            trainer.__dict__.pop("_idle_rows", None)
        loss = trainer._compute_loss(trainer.model, given)
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in trainer.model.parameters()]

    plain_loss, plain = gradient(lean=False)
    lean_loss, lean = gradient(lean=True)
    assert_close(lean_loss, plain_loss, rtol=1e-5, atol=1e-6)
    for a, b in zip(lean, plain, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_step_without_credit_still_runs_backward(make_trainer):
    trainer, _ = make_trainer("method=grpo")
    mask = torch.ones(3, 5, dtype=torch.long)
    inputs = {
        "prompt_ids": torch.full((3, 2), 20),
        "prompt_mask": torch.ones(3, 2, dtype=torch.long),
        "completion_ids": torch.full((3, 5), 30),
        "completion_mask": mask,
        "advantages": torch.zeros(3),
        "num_items_in_batch": mask.sum(),
    }
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in trainer.model.parameters())


def test_ragged_scores_come_back_in_their_rows():
    def score(ids, mask, columns):
        return ids[:, -columns:].float() * mask[:, -columns:], None

    ids = torch.arange(5 * 8).reshape(5, 8)
    lengths = torch.tensor([2, 6, 0, 4, 1])
    mask = torch.cat([torch.ones(5, 2), (torch.arange(6) < lengths[:, None]).float()], dim=1)
    idle = torch.tensor([False, False, False, True, False])
    scores, entropies = score_ragged(score, ids, mask, 6, idle_N=idle, chunk_rows=2)
    assert entropies is None
    assert_close(scores, (ids * mask)[:, 2:] * ~idle[:, None])


class Broken(StatelessShaper):
    def shape(self, batch, reward):
        return Shaped(reward / 0)


def test_a_reward_that_is_nan_is_refused_with_its_shaper_and_prompt(make_trainer):
    trainer, _ = make_trainer("method=grpo")
    trainer.shaper.shapers = [Broken()]
    with pytest.raises(ValueError, match=r"Broken returned reward\[\d+\]=(nan|inf) for prompt [0-9a-f]{16}"):
        trainer.train()


def test_phases_need_a_tag_that_the_tokenizer_has(make_trainer):
    with pytest.raises(ValueError, match="no single token '</pondering>'"):
        make_trainer("method=pear", think_end="</pondering>")
    make_trainer("method=hapo", think_end="</pondering>")


def test_a_checkpoint_inside_a_generation_window_is_refused(make_trainer):
    with pytest.raises(UserError, match=r"trainer.save_steps=3 is no multiple of the 2 optimizer steps"):
        make_trainer("method=hapo", "trainer.num_iterations=2", "trainer.save_strategy=steps", "trainer.save_steps=3")


def test_lora_trains_the_adapter_alone(make_trainer):
    trainer, seen = make_trainer("method=pear", peft_config=lora(compose(["peft=lora"]).peft))
    trainer.train()
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert len(seen.metrics) == 2
