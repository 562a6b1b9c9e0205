"""A model's log-probs are its own, or it is refused by name before it trains; padding changes none of them."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertGenerationConfig,
    BertGenerationDecoder,
    BioGptConfig,
    CTRLConfig,
    GitConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    Phi3Config,
    RecurrentGemmaConfig,
    XGLMConfig,
)

from concise_rl.errors import UserError
from concise_rl.model.cache import check_context, rotary_switch, supports_plain_cache
from concise_rl.model.check import check_scoring, sample_tokens_of
from concise_rl.model.sampling import left_pad, sample_tokens
from concise_rl.model.scoring import Scoring, add_scoring_head

TOKENS = [7, 31, 2, 19, 44, 5, 28, 60, 11, 3, 52, 17]
SMALL = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
LLAMA = SMALL | {"intermediate_size": 32, "num_key_value_heads": 2, "max_position_embeddings": 64}
ABSOLUTE = {
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_head=4, n_layer=2, n_positions=64),
    "gpt_neo": GPTNeoConfig(
        vocab_size=64, hidden_size=32, num_heads=4, num_layers=2, attention_types=[[["global"], 2]],
        max_position_embeddings=64,
    ),
    "biogpt": BioGptConfig(**SMALL, intermediate_size=32, max_position_embeddings=64),
    "xglm": XGLMConfig(vocab_size=64, d_model=32, attention_heads=4, num_layers=2, ffn_dim=32),
    "ctrl": CTRLConfig(vocab_size=64, n_embd=32, n_head=4, n_layer=2, dff=32, n_positions=64),
}  # fmt: skip


def random_model(config, kind=None):
    torch.manual_seed(0)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 1
    made = kind(config) if kind else AutoModelForCausalLM.from_config(config)
    for name, parameter in made.named_parameters():  # initial weights are too small to tell much apart
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2 if "wpe" not in name else 1.0)
    return made.eval()


def checked(model) -> None:
    add_scoring_head(model)
    check_scoring(model, TOKENS, 0, plain_cache=supports_plain_cache(model))


def scored(model, rows, prompt):
    ids, mask = left_pad(rows, 0, model.device)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, scoring=Scoring(mask[:, prompt:], 1.0, "nograd"))[1]


@pytest.mark.parametrize("name", ABSOLUTE)
def test_padding_on_the_left_shifts_no_place(name):
    """Models with absolute places, which count columns unless they are told."""
    model = random_model(ABSOLUTE[name])
    add_scoring_head(model)
    short = TOKENS[3:]
    together = scored(model, [TOKENS, short], 6)[1]
    torch.testing.assert_close(together, scored(model, [short], 3)[0], rtol=1e-4, atol=1e-5)
    check_scoring(model, TOKENS, 0, plain_cache=False)


def test_a_plain_model_passes():
    checked(random_model(LlamaConfig(**LLAMA)))


@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_model_that_reads_ahead_is_refused_by_name(is_decoder):
    config = BertGenerationConfig(**SMALL, intermediate_size=32, is_decoder=is_decoder)
    model = random_model(config, BertGenerationDecoder)
    add_scoring_head(model)
    if is_decoder:
        return check_scoring(model, TOKENS, 0, plain_cache=True)
    with pytest.raises(UserError, match=r"^BertGenerationDecoder: a token's log-prob depends on those that come after"):
        check_scoring(model, TOKENS, 0, plain_cache=False)
    with pytest.raises(UserError, match=r"^BertGenerationDecoder: its backbone and head cannot score a row \("):
        check_scoring(model, TOKENS, 0, plain_cache=True)
    return None


def test_rows_of_a_captioner_do_not_go_on_from_a_cached_prompt():
    config = GitConfig(**SMALL, intermediate_size=32, num_image_with_embedding=None)
    with pytest.raises(UserError, match=r"^GitForCausalLM: a row that goes on from its cached prompt"):
        checked(random_model(config))


class Halved(LlamaForCausalLM):
    """Remote code may do between hidden states and logits whatever it likes."""

    def forward(self, **kwargs):
        output = super().forward(**kwargs)
        output.logits = output.logits / 2
        return output


class Shifted(GPT2LMHeadModel):
    """Its backbone takes no places, so that padding shifts them."""


def test_a_head_that_does_more_than_it_says_is_refused_by_name():
    with pytest.raises(UserError, match=r"^Halved: log-probs from its hidden states and head differ by \d"):
        checked(random_model(LlamaConfig(**LLAMA), Halved))


def test_a_cap_is_applied_and_one_that_nobody_knows_is_refused(monkeypatch):
    config = RecurrentGemmaConfig(**SMALL, intermediate_size=32, lru_width=32, logits_soft_cap=2.0)
    check = random_model(config)
    with pytest.raises(UserError, match=r"^RecurrentGemmaForCausalLM: a row padded"):  # its state reads the padding
        checked(check)
    monkeypatch.setattr("concise_rl.model.scoring.SOFTCAPS", ())
    with pytest.raises(UserError, match=r"^RecurrentGemmaForCausalLM: log-probs .* cannot be trained here"):
        checked(check)


def test_a_model_that_reads_padding_is_refused_by_name(monkeypatch):
    model = random_model(ABSOLUTE["gpt2"], Shifted)
    monkeypatch.setattr("concise_rl.model.scoring.takes_positions", lambda backbone: False)
    with pytest.raises(UserError, match=r"^Shifted: a row padded beside a longer one has other log-probs"):
        checked(model)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("cached", [True, False])
def test_weights_that_are_not_finite_end_in_one_line(temperature, cached, monkeypatch):
    monkeypatch.setattr("concise_rl.model.sampling.supports_plain_cache", lambda model: cached)
    model = random_model(LlamaConfig(**LLAMA))
    model.model.norm.weight.data[3] = torch.nan
    with pytest.raises(UserError, match="the model's logits are not finite, so nothing can be sampled"):
        sample_tokens(
            model, [TOKENS], max_new_tokens=4, temperature=temperature, top_p=0.9, eos_token_ids={1}, pad_token_id=0
        )
    with pytest.raises(UserError, match="LlamaForCausalLM: its log-probs are not finite: its weights hold NaN"):
        checked(model)


def test_experts_that_show_their_routing_can_sample():
    config = MixtralConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2, output_router_logits=True)
    model = random_model(config)
    rows = sample_tokens(model, [TOKENS], max_new_tokens=4, temperature=0.0, eos_token_ids={1}, pad_token_id=0)
    quiet = random_model(copy.deepcopy(config))
    quiet.config.output_router_logits = False
    assert rows == sample_tokens(quiet, [TOKENS], max_new_tokens=4, temperature=0.0, eos_token_ids={1}, pad_token_id=0)
    assert model.config.output_router_logits


def phi3(kind: str) -> Phi3Config:
    rope = {"rope_type": kind, "rope_theta": 10000.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 16}
    if kind == "dynamic":
        rope |= {"factor": 2.0}
    return Phi3Config(**LLAMA, original_max_position_embeddings=16, rope_parameters=rope)


def test_rows_that_would_switch_rotary_frequencies_are_refused():
    """With LongRoPE the longest row of a batch decides for all of it."""
    model = random_model(phi3("longrope"))
    add_scoring_head(model)
    alone = scored(model, [TOKENS], 4)[0]
    assert (scored(model, [TOKENS * 2, TOKENS], 16)[1] - alone).abs().max() > 1e-2, "else nothing needs refusing"
    assert rotary_switch(model.config) == 16
    check_context(model.config, 16, "")
    with pytest.raises(UserError, match=r"rows of more than 16 tokens .* longest\s+row's.* rows of 17 .*; lower it"):
        check_context(model.config, 17, "lower it")
    with pytest.raises(UserError, match=r"max_new_tokens=5 is too many"):
        sample_tokens(model, [TOKENS], max_new_tokens=5, temperature=1.0, eos_token_ids={1}, pad_token_id=0)
    assert sample_tokens(model, [TOKENS], max_new_tokens=4, temperature=1.0, eos_token_ids={1}, pad_token_id=0)


def test_other_rotary_frequencies_are_fixed():
    assert rotary_switch(phi3("default")) is None
    assert rotary_switch(LlamaConfig(**LLAMA)) is None
    assert rotary_switch(ABSOLUTE["gpt2"]) is None


def test_the_tokens_that_are_tried_are_the_models():
    def few(text):
        return {"input_ids": [3, 99, 4]}

    assert sample_tokens_of(few, 10) == [3, 4, *range(10), *range(4)]
    assert sample_tokens_of(lambda text: {"input_ids": list(range(40))}, 64) == list(range(16))
