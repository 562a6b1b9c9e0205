"""What the trainer asks of a model is asked when it is built; what it scores is what it sampled."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)
from trl import GRPOTrainer

from concise_rl.assets import TINY
from concise_rl.engine.lean import LeanConfig, LeanTrainer
from concise_rl.errors import UserError

TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
TEXT |= {"num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64}


def build(tmp_path, model, columns=None, **fields):
    tokenizer = AutoTokenizer.from_pretrained(TINY, padding_side="left")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    given = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12, "max_steps": 2}
    given |= {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False, "logging_steps": 1}
    return LeanTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(len(text) % 3) for text in completions],
        args=LeanConfig(output_dir=str(tmp_path), save_strategy="no", disable_tqdm=True, **given | fields),
        train_dataset=Dataset.from_dict({"prompt": ["1+2+3", "4", "2+2", "3+1+1+2"]} | (columns or {})),
        processing_class=tokenizer,
    )


def mixtral(**fields) -> MixtralForCausalLM:
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(**TEXT, num_local_experts=4, num_experts_per_tok=2, **fields))


def test_experts_with_a_loss_of_their_own_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"router_aux_loss_coef=0\.001, the model's own .* set trainer\.router_aux"):
        build(tmp_path, mixtral())
    with pytest.raises(UserError, match=r"router_aux_loss_coef=0\.5"):
        build(tmp_path, mixtral(), router_aux_loss_coef=0.5)


@pytest.mark.parametrize("shown", [True, False])
def test_experts_train_without_it_under_the_budget(tmp_path, shown, monkeypatch):
    tokens = []
    forward = LeanTrainer._score_microbatch

    def count(self, model, rows, *args, **kwargs):
        tokens.append(rows.completion_ids.numel())
        return forward(self, model, rows, *args, **kwargs)

    monkeypatch.setattr(LeanTrainer, "_score_microbatch", count)
    model = mixtral(output_router_logits=shown)
    trainer = build(tmp_path, model, router_aux_loss_coef=0.0, max_tokens_per_microbatch=40)
    trainer.train()
    assert max(tokens) <= 40
    assert len(tokens) > 4
    assert [log["loss"] for log in trainer.state.log_history if "loss" in log]


def test_absolute_places_are_scored_where_they_were_sampled(tmp_path):
    """The ratio before any update is 1 for prompts of any length; GPT-2 counts the padding unless it is told not to."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_embd=32, n_head=4, n_layer=2, n_positions=64))
    trainer = build(tmp_path, model)
    trainer._share_prompts = False
    ids = torch.tensor([[0, 0, 0, 21, 22, 31, 32, 33], [11, 12, 13, 14, 15, 41, 42, 43]])
    mask = (ids > 0).long()
    model.eval()
    logprob = trainer._get_per_token_logps_and_entropies(model, ids, mask, 3)[0]
    for row in range(2):
        alone = ids[row][mask[row].bool()][None]
        expected = model(input_ids=alone).logits[0, -4:-1].log_softmax(-1).gather(1, alone[0, -3:, None])[:, 0]
        torch.testing.assert_close(logprob[row], expected, rtol=1e-4, atol=1e-5)
    shifted = GRPOTrainer._get_per_token_logps_and_entropies(trainer, model, ids, mask, 3)[0]
    assert (shifted - logprob).abs().max() > 1e-2, "else the test shows nothing"


def test_images_are_refused(tmp_path):
    llama = LlamaForCausalLM(LlamaConfig(**TEXT))
    with pytest.raises(UserError, match="images do not reach the loss, and the vision tower would not learn: train on"):
        build(tmp_path, llama, columns={"image": ["a.png"] * 4})


def test_rows_beyond_a_rotary_switch_are_refused(tmp_path):
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope["original_max_position_embeddings"] = 16
    config = Phi3Config(**TEXT, rope_parameters=rope, original_max_position_embeddings=16, pad_token_id=0)
    with pytest.raises(UserError, match=r"rows of more than 16 tokens .* lower trainer\.max_completion_length"):
        build(tmp_path, Phi3ForCausalLM(config), max_completion_length=16)
    trainer = build(tmp_path, Phi3ForCausalLM(config), max_completion_length=12)
    ids = torch.full((1, 17), 12)
    with pytest.raises(UserError, match="rows of 17 results would depend on how a step is cut"):
        trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), 8)


def test_a_model_that_scores_otherwise_than_it_says_is_refused_when_the_trainer_is_built(tmp_path):
    llama = LlamaForCausalLM(LlamaConfig(**TEXT))
    inner = llama.forward

    def doubled(**kwargs):
        output = inner(**kwargs)
        output.logits = output.logits * 2
        return output

    llama.forward = doubled
    with pytest.raises(UserError, match="LlamaForCausalLM: log-probs from its hidden states and head differ"):
        build(tmp_path, llama)
