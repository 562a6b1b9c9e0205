"""A run that begins with an adapter trains that adapter, or the merged model; its reference is what it began with."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from concise_rl.assets import TINY
from concise_rl.commands.config import compose, trainer_fields
from concise_rl.commands.train import build_trainer
from concise_rl.engine.trainer import ConciseConfig
from concise_rl.errors import UserError
from concise_rl.evaluation import evaluate
from concise_rl.model.adapters import lora
from concise_rl.model.loading import check_policy, load_model, load_policy, load_tokenizer
from concise_rl.testbeds import ChainSum
from concise_rl.verifiers import Exact

peft = pytest.importorskip("peft")
IDS = torch.tensor([[3, 4, 5, 6, 7, 8]])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA folder on the embedded model, whose adapter changes it, without a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    torch.manual_seed(0)
    base = load_model(compose([]).model)
    model = peft.get_peft_model(base, lora(compose(["peft=lora", "peft.r=4"]).peft))
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            weights.data.normal_(0, 0.05)
    model.save_pretrained(folder)
    return folder


def config(adapter, *overrides):
    small = ["trainer.per_device_train_batch_size=16", "trainer.num_generations=4", "trainer.max_completion_length=32"]
    more = ["trainer.max_steps=2", "trainer.save_strategy=no", "trainer.learning_rate=1e-2"]
    return compose([*small, *more, f"model.path={adapter}", *overrides])


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_loaded_for_evaluation_it_is_base_and_adapter_and_merged_it_is_the_same(adapter):
    start = logits(load_model(config(adapter).model))
    assert (start - logits(load_model(compose([]).model))).abs().max() > 0.1
    merged = load_model(config(adapter, "model.merge_adapter=true").model)
    assert not hasattr(merged, "peft_config")
    assert_close(logits(merged), start, rtol=1e-4, atol=1e-4)
    tokenizer = load_tokenizer(config(adapter).model)
    problems = ChainSum().load("test")[:2]
    found = evaluate(
        load_model(config(adapter).model), tokenizer, problems, Exact(), max_new_tokens=16, temperature=1.0, seed=0
    )
    assert len(found.rows) == 2


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_training_begins_with_the_adapter_and_the_reference_is_the_start(adapter, tmp_path, merge, beta):
    chosen = config(
        adapter, "peft=lora", f"peft.r={16 if merge else 4}", f"model.merge_adapter={merge}", f"trainer.beta={beta}"
    )
    policy, tokenizer = load_policy(chosen.model, chosen.peft), load_tokenizer(chosen.model)
    start = logits(policy)
    assert_close(start, logits(load_model(config(adapter).model)), rtol=1e-4, atol=1e-4)
    args = ConciseConfig(output_dir=str(tmp_path), **trainer_fields(chosen))
    trainer = build_trainer(chosen, args, policy, tokenizer, ChainSum().load("train"))
    assert_close(logits(trainer.model), start, rtol=1e-4, atol=1e-4)
    trained = {name for name, weights in trainer.model.named_parameters() if weights.requires_grad}
    assert trained
    assert all("lora_" in name and ".default." in name for name in trained)
    trainer.train()
    assert (logits(trainer.model) - start).abs().max() > 1e-3
    if beta:
        first, *_ = trainer.state.log_history
        assert first["kl"] == pytest.approx(0, abs=1e-5)
        unwrapped = trainer.accelerator.unwrap_model(trainer.model)
        if merge:
            with unwrapped.disable_adapter():
                assert_close(logits(unwrapped), start, rtol=1e-4, atol=1e-4)
        else:
            unwrapped.set_adapter("ref")
            assert_close(logits(unwrapped), start, rtol=1e-4, atol=1e-4)


def test_all_weights_of_a_merged_model_train_and_its_reference_is_the_merged_model(adapter, tmp_path):
    chosen = config(adapter, "model.merge_adapter=true", "trainer.beta=0.1")
    policy = load_policy(chosen.model, chosen.peft)
    start = logits(policy)
    args = ConciseConfig(output_dir=str(tmp_path), **trainer_fields(chosen))
    trainer = build_trainer(chosen, args, policy, load_tokenizer(chosen.model), ChainSum().load("train"))
    assert_close(logits(trainer.ref_model), start, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "is a LoRA adapter, which does not train without peft=lora"),
        (["peft=lora"], r"peft.r=16, the adapter in model.path=.* goes on training with its own r=4: set peft.r=4, or"),
        (["model.path=embedded:tiny", "model.merge_adapter=true"], "is no folder with a LoRA adapter"),
    ],
)
def test_what_would_not_train_is_refused_before_anything_is_loaded(adapter, overrides, message):
    chosen = config(adapter, *overrides)
    with pytest.raises(UserError, match=message):
        check_policy(chosen.model, chosen.peft)


def test_an_adapter_that_lacks_weights_or_is_no_lora_is_refused(adapter, tmp_path):
    torn = shutil.copytree(adapter, tmp_path / "torn")
    weights = load_file(torn / "adapter_model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, torn / "adapter_model.safetensors")
    with pytest.raises(UserError, match="the adapter lacks weights"):
        load_model(config(torn).model)
    text = (torn / "adapter_config.json").read_text()
    (torn / "adapter_config.json").write_text(text.replace('"LORA"', '"PREFIX_TUNING"'))
    with pytest.raises(UserError, match="holds an adapter of kind PREFIX_TUNING"):
        load_model(config(torn).model)


def test_a_copy_of_the_head_is_refused():
    with pytest.raises(UserError, match=r"peft.modules_to_save=\['lm_head'\]"):
        lora({"r": 4, "modules_to_save": ["lm_head"]})


def test_the_reference_is_loaded_as_the_policy_was(tmp_path, monkeypatch):
    """TRL alone would load the reference of revision `main`, without remote code."""
    chosen = compose(["trainer.beta=0.1", "model.revision=abc", "trainer.per_device_train_batch_size=16"])
    policy, tokenizer = load_model(compose([]).model), load_tokenizer(compose([]).model)
    loads = []
    kept = load_model

    def load(spec, tell=None):
        loads.append((spec.path, spec.revision, spec.trust_remote_code))
        return kept(compose([]).model)

    monkeypatch.setattr("concise_rl.model.loading.load_model", load)
    args = ConciseConfig(output_dir=str(tmp_path), **trainer_fields(chosen))
    trainer = build_trainer(chosen, args, policy, tokenizer, ChainSum().load("train"))
    assert loads == [("embedded:tiny", "abc", False)]
    assert_close(logits(trainer.ref_model), logits(policy))


def test_missing_weights_are_refused_and_others_are_told(tmp_path, capsys):
    folder = shutil.copytree(TINY, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    spec = compose([f"model.path={folder}"]).model
    said = []
    save_file(weights | {"value_head.weight": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    load_model(spec, said.append)
    assert said == [f"model.path={folder} holds 1 tensors that its model does not use: value_head.weight"]
    weights.pop("model.layers.0.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UserError, match=r"lacks 1 tensors of its model \(model.layers.0.mlp.up_proj.weight\): they would"
    ):
        load_model(spec)
