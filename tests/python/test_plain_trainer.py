"""What TRL's users have, a plain data set, a plain `GRPOConfig` and a model's name, trains as it stands."""

from __future__ import annotations

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig

from concise_rl import ConciseConfig, ConciseTrainer, Hapo, Prompt, UserError, load_method
from concise_rl.engine.dataset import plain_dataset
from concise_rl.verifiers import Exact, FinalNumber

from .stock import config, sums

NO_NUMBER = Dataset.from_list([{"prompt": "a", "answer": "b"}])


def trained(folder, **options):
    """A run on the embedded model, given by its name, with what it held before."""
    defaults = {"method": "kimi", "args": config(folder, max_steps=2), "train_dataset": sums()}
    trainer = ConciseTrainer("embedded:tiny", **defaults | options)
    start = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    return trainer, start


def test_named_columns_a_component_and_trls_defaults(tmp_path):
    # As TRL's README has it: bfloat16 and gradient checkpointing are on unless told otherwise.
    args = GRPOConfig(
        str(tmp_path), per_device_train_batch_size=8, num_generations=4, max_completion_length=32, max_steps=1,
        use_cpu=True, report_to="none",
    )  # fmt: skip
    problems = sums().rename_columns({"prompt": "question", "answer": "gold"})
    trainer, start = trained(
        tmp_path, method=Hapo(weight=0.5), args=args, train_dataset=problems, prompt_column="question",
        answer_column="gold", eval_dataset=problems.select(range(2)),
    )  # fmt: skip
    assert trainer.state.global_step == 1
    assert 0 < trainer.state.log_history[0]["accuracy"] <= 1
    assert any(not torch.equal(w, start[name]) for name, w in trainer.model.state_dict().items())
    assert "eval_accuracy" in trainer.evaluate()


def test_rows_and_keys_of_plain_data():
    (row,) = plain_dataset(sums(1), Exact(), prompt_column="prompt", answer_column="answer")
    problem = sums(1)[0]
    assert row["prompt_key"] == Prompt.of(problem["prompt"], problem["answer"]).id, "the key of every other source"
    assert row["columns"] == '{"difficulty": 2}'
    chat = sums(1).map(lambda each: {"prompt": [{"role": "user", "content": each["prompt"]}]})
    (talked,) = plain_dataset(chat, Exact(), prompt_column="prompt", answer_column="answer")
    assert talked["prompt_key"] == row["prompt_key"]
    assert talked["prompt"] == [{"role": "user", "content": problem["prompt"]}], "TRL applies the template"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_dataset": [{"prompt": "1+1=", "answer": "2"}]}, "give a datasets.Dataset"),
        ({"prompt_column": "promt"}, "prompt_column='promt': the data set has no such column; did you mean prompt"),
        ({"train_dataset": Dataset.from_list([{"prompt": "1+1=", "answer": None}])}, "row 0 .* lacks prompt or answer"),
        ({"train_dataset": Dataset.from_list([{"prompt": "a", "answer": "b", "image": b"x"}])}, "remove_columns"),
        ({"train_dataset": NO_NUMBER, "verifier": FinalNumber()}, "does not verify against itself"),
        ({"reward_funcs": len}, "give verifier="),
        ({"method": "hapoo"}, "did you mean hapo"),
        ({"method": Hapo}, "give objects"),
        ({"args": GRPOConfig("out", use_cpu=True, scale_rewards="none")}, "set advantage.group_relative.scale"),
        ({"args": GRPOConfig("out", use_cpu=True, steps_per_generation=3, gradient_accumulation_steps=2)}, "multiple"),
    ],
)
def test_what_cannot_train_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr("trl.trainer.grpo_trainer.create_model_from_path", lambda *_, **__: pytest.fail("loaded"))
    options = {"method": "kimi", "args": config(tmp_path), "train_dataset": sums(2)} | change
    with pytest.raises(UserError, match=message):
        ConciseTrainer("embedded:tiny", **options)


def test_the_recipes_loss_holds_where_args_say_nothing(tmp_path):
    recipe = load_method("scalerl").loss
    plain = config(tmp_path)
    own = ConciseConfig.of(plain, recipe)
    assert (own.loss_type, own.epsilon_high) == ("cispo", recipe["epsilon_high"])
    assert plain.loss_type == "dapo", "the caller's object is not touched"
    assert own.learning_rate == plain.learning_rate
    with pytest.warns(UserWarning, match="loss_type=grpo stands; the recipe says cispo"):
        assert ConciseConfig.of(config(tmp_path, loss_type="grpo"), recipe).loss_type == "grpo"
    with pytest.raises(UserError, match="num_generations=16: 8 completions a generation make no whole groups"):
        ConciseConfig.of(config(tmp_path, num_generations=8), load_method("gfpo").loss)


def test_an_adapter_trains_alone_against_the_model_it_began_with(tmp_path):
    adapter = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    args = config(tmp_path, max_steps=3, beta=0.1, learning_rate=5e-3)
    trainer, start = trained(tmp_path, method="kimi", args=args, peft_config=adapter)
    trains = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trains
    assert all("lora_" in name for name in trains)
    for name, weight in trainer.model.state_dict().items():
        if name not in trains:
            assert torch.equal(weight, start[name]), name
    assert any(not torch.equal(trainer.model.state_dict()[name], start[name]) for name in trains)
    assert trainer.ref_model is None, "the reference is this model without its adapter, so not one more in memory"
    kl = [logs["kl"] for logs in trainer.state.log_history if "kl" in logs]
    assert kl[0] == pytest.approx(0, abs=1e-6), "a new adapter is the base"
    assert kl[-1] > 1e-6


def test_a_head_that_would_be_copied_is_refused(tmp_path):
    adapter = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    with pytest.raises(UserError, match="lm_head"):
        trained(tmp_path, peft_config=adapter)
