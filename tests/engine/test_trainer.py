"""Beyond the algorithm: one forward for signals, no idle rows, and an evaluation that moves nothing."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch.testing import assert_close
from trl import GRPOTrainer

from concise_rl.commands.config import compose
from concise_rl.commands.guarded import warn_of_idle_history
from concise_rl.engine.trainer import ConciseTrainer
from concise_rl.errors import UserError
from concise_rl.methods import Method, Out, Plain, Shaper, method_names
from concise_rl.methods.history import History
from concise_rl.model.adapters import lora
from concise_rl.model.loading import load_model


@pytest.mark.parametrize("method", method_names())
def test_every_method_trains_a_step(make_trainer, method):
    trainer, seen = make_trainer(f"method={method}", *(["cut.dot.alpha=1"] if method == "dot" else []))
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


@pytest.mark.parametrize(("method", "prompts", "told"), [("hapo", 4, False), ("hapo", 16, True), ("grpo", 16, False)])
def test_a_history_that_never_acts_is_told(make_trainer, method, prompts, told):
    said: list[str] = []
    trainer, _ = make_trainer(f"method={method}")
    trainer.train_dataset = trainer.train_dataset.select(range(prompts))
    assert trainer.visits_per_prompt() == 2 * 4 / prompts, "two steps of four prompts"
    warn_of_idle_history(trainer, said.append)
    assert bool(said) == told
    assert not told or said[0].startswith("Hapo compares with a prompt's earlier answers, but this run draws 50%")


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

    class AsksForTokens(Plain):
        needs = frozenset({"entropies", "logprobs"})

    trainer.method = dataclasses.replace(
        trainer.method, components={"shaper.asks": AsksForTokens(), **trainer.method.components}
    )
    policy = load_model(compose([]).model).eval()
    trainer.train()
    record = seen.records[0]
    ids = trainer._tokenizer(record.prompts[0])["input_ids"]
    n = int(record.batch.lengths[0])
    said = trainer._tokenizer(record.completions[0])["input_ids"]
    said = [*said, trainer._tokenizer.eos_token_id][:n]
    with torch.no_grad():
        logprobs = policy(input_ids=torch.tensor([[*ids, *said]])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    assert_close(record.batch.entropies[0, : len(said)], entropy, rtol=1e-4, atol=1e-5)
    assert_close(record.batch.logprobs[0, : len(said)], logprobs[range(len(said)), said], rtol=1e-4, atol=1e-5)
    assert record.batch.mean_entropy[0] == pytest.approx(float(entropy.mean()), abs=1e-5)


def test_evaluation_does_not_move_the_history(make_trainer):
    trainer, _ = make_trainer("method=hapo", "trainer.max_steps=1")
    trainer.train()
    before = copy.deepcopy(trainer.states["shaper.hapo"])
    assert isinstance(before, History)
    assert len(before) > 0
    trainer.args.per_device_eval_batch_size = 8
    trainer.num_generations_eval = 4
    trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))
    assert trainer.states["shaper.hapo"] == before


class Broken(Shaper):
    def apply(self, batch, value):
        return Out(value / 0)


def test_a_reward_that_is_nan_is_refused_with_its_shaper_and_prompt(make_trainer):
    trainer, _ = make_trainer("method=grpo")
    trainer.method = Method("broken", {"shaper.Broken": Broken(), **trainer.method.components})
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


def test_what_a_component_logs_reaches_the_metrics_of_the_step(make_trainer):
    trainer, seen = make_trainer("method=kimi", "trainer.max_steps=1")
    trainer.train()
    (record,), (logged,) = seen.records, seen.metrics
    assert record.metrics["kimi_length/span_mean"] > 0
    assert {k: logged[k] for k in record.metrics} == pytest.approx(record.metrics)


def test_conversations_go_through_the_template_in_a_bounded_process(make_trainer, monkeypatch):
    trainer, _ = make_trainer("trainer.chat_template_kwargs={mood: wait}")
    tokenizer = trainer.processing_class
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<think>{% endif %}{{ mood }}"
    )
    asked = [[{"role": "user", "content": f"{n}a+9="}] for n in range(3)]
    stock = GRPOTrainer._tokenize_prompts(trainer, asked)
    assert len(set(map(tuple, stock[0]))) == 3
    monkeypatch.setattr(type(tokenizer), "apply_chat_template", None)  # this process runs no template
    assert trainer._tokenize_prompts(asked) == stock
    tokenizer.chat_template = "{{ 'a' * 3000000000 }}"
    with pytest.raises(UserError, match=r"the chat template of .* takes more than 512 MiB of memory"):
        trainer._tokenize_prompts(asked)
