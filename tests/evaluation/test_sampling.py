"""The sampling loop: what it draws is what transformers' own `generate` would, whichever rows share a batch."""

from __future__ import annotations

import pytest
import torch

from concise_rl.errors import UserError
from concise_rl.model.cache import supports_plain_cache
from concise_rl.model.sampling import evaluating, pick_tokens, sample_tokens

from .conftest import EOS, PAD, VOCABULARY, tiny_llama

COMMON = {"eos_token_ids": {EOS}, "pad_token_id": PAD}


def alone(model, prompt, max_new_tokens):
    """Greedy, through transformers, one prompt without padding."""
    out = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=max_new_tokens,
        do_sample=False,
    )
    return out[0, len(prompt) :].tolist()


def test_greedy_equals_generate_token_by_token(model, prompts):
    expected = [alone(model, prompt, 24) for prompt in prompts]
    lengths = {len(tokens) for tokens in expected}
    assert len(lengths) > 4
    assert max(lengths) == 24, "the case must hold both early and late finishes"
    for batch_rows in (None, 1, 7):
        got = sample_tokens(model, prompts, max_new_tokens=24, temperature=0.0, batch_rows=batch_rows, **COMMON)
        assert got == expected


def test_cudnn_attention_plans_for_no_column(model, prompts):
    """Its plan for each length costs more than the length itself; whoever sampled has the choice back afterwards."""
    seen = []
    hook = model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    chosen = torch.backends.cuda.cudnn_sdp_enabled()
    sample_tokens(model, prompts[:2], max_new_tokens=3, temperature=1.0, **COMMON)
    hook.remove()
    assert seen
    assert not any(seen)
    assert torch.backends.cuda.cudnn_sdp_enabled() == chosen


def test_the_head_gets_rows_without_gaps(model, prompts):
    """From a slice torch's bfloat16 product on a CPU copies the head's weight for every row."""
    seen = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, x: seen.append(x[0].is_contiguous()))
    sample_tokens(model, prompts, max_new_tokens=3, temperature=1.0, batch_rows=7, **COMMON)
    hook.remove()
    assert seen
    assert all(seen)


def test_learned_positions_at_the_last_place(prompts):
    """GPT-2 looks its positions up in a table: a row that ran past its end would fail."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=11 + 20, n_embd=16, n_layer=2, n_head=2, initializer_range=0.6,
        bos_token_id=None, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    gpt2 = GPT2LMHeadModel(config).double().eval()
    got = sample_tokens(gpt2, prompts[:20], max_new_tokens=20, temperature=0.0, batch_rows=9, **COMMON)
    assert got == [alone(gpt2, prompt, 20) for prompt in prompts[:20]]


def test_a_row_draws_the_same_whatever_shares_its_batch(model, prompts):
    def draw(seed, batch_rows):
        generator = torch.Generator().manual_seed(seed)
        return sample_tokens(
            model, prompts, max_new_tokens=40, temperature=1.0, generator=generator, batch_rows=batch_rows, **COMMON
        )

    reference = draw(5, None)
    assert draw(5, None) == reference
    assert draw(5, 6) == reference
    seeds = torch.randint(2**62, (len(prompts),), generator=torch.Generator().manual_seed(5)).tolist()
    part = sample_tokens(model, prompts[9:3:-1], max_new_tokens=40, temperature=1.0, seeds=seeds[9:3:-1], **COMMON)
    assert part == reference[9:3:-1]
    assert draw(6, None) != reference
    for tokens in reference:
        assert EOS not in tokens[:-1]
        assert tokens[-1] == EOS or len(tokens) == 40


def test_first_tokens_follow_the_model(model):
    """20 000 draws of one next token against the softmax: chi-square below its 0.999 quantile."""
    from scipy.stats import chi2

    prompt, draws = [5, 9, 3], 20_000
    generator = torch.Generator().manual_seed(0)
    got = sample_tokens(model, [prompt] * draws, max_new_tokens=1, temperature=0.7, generator=generator, **COMMON)
    counts = torch.bincount(torch.tensor(got).flatten(), minlength=VOCABULARY).double()
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([prompt])).logits[0, -1] / 0.7, dim=-1) * draws
    likely = expected > 5
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    assert statistic < chi2.ppf(0.999, df=int(likely.sum()))


def test_top_k_and_top_p_cut_as_transformers_does():
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(1)) * 3
    uniforms = torch.linspace(0, 1 - 1e-9, 2000, dtype=torch.float64)
    for top_k, top_p in [(5, 1.0), (0, 0.8), (7, 0.6), (0, 1e-6)]:
        warped = TemperatureLogitsWarper(0.9)(None, logits)
        if top_k:
            warped = TopKLogitsWarper(top_k)(None, warped)
        warped = TopPLogitsWarper(top_p)(None, warped)
        for row in range(len(logits)):
            repeated = logits[row].expand(len(uniforms), -1)
            share = torch.bincount(pick_tokens(repeated, uniforms, 0.9, top_p, top_k)[0], minlength=50) / len(uniforms)
            torch.testing.assert_close(share, torch.softmax(warped[row], dim=-1), atol=1.5e-3, rtol=0)


def test_the_last_token_with_probability_is_the_last_that_can_be_drawn():
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    just_below_one = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert pick_tokens(logits, just_below_one, 1.0, 1.0, 0)[0].tolist() == [1]
    assert pick_tokens(torch.tensor([[float("-inf"), 0.0]]), torch.zeros(1, dtype=torch.float64), 1.0, 1.0, 0)[
        0
    ].tolist() == [1]


def test_sliding_windows_sample_through_generate(prompts):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8, initializer_range=0.4, bos_token_id=None, eos_token_id=EOS,
        pad_token_id=PAD,
    )  # fmt: skip
    mistral = MistralForCausalLM(config).double().eval()
    assert not supports_plain_cache(mistral)
    assert supports_plain_cache(tiny_llama())
    got = sample_tokens(mistral, prompts[:6], max_new_tokens=20, temperature=0.0, batch_rows=4, **COMMON)
    assert got == [alone(mistral, prompt, 20) for prompt in prompts[:6]]

    def draw():
        generator = torch.Generator().manual_seed(2)
        return sample_tokens(mistral, prompts[:6], max_new_tokens=20, temperature=1.0, generator=generator, **COMMON)

    before = torch.random.get_rng_state()
    assert draw() == draw()
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left as it was"


def test_an_adapter_keeps_the_fast_loop(prompts):
    peft = pytest.importorskip("peft")
    base = tiny_llama()
    wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).double()
    assert supports_plain_cache(wrapped)
    got = sample_tokens(wrapped, prompts[:5], max_new_tokens=10, temperature=0.0, **COMMON)
    assert got == [alone(wrapped, prompt, 10) for prompt in prompts[:5]]


def test_modes_come_back(model):
    other = tiny_llama().train()
    other.model.layers[0].eval()
    with evaluating(other):
        assert not any(module.training for module in other.modules())
    assert other.training
    assert not other.model.layers[0].training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"batch_rows": 0}, "batch_rows=0"),
        ({"max_new_tokens": 126}, "max_position_embeddings=128; give at most 125"),
    ],
)
def test_refusals(model, change, message):
    settings = {"max_new_tokens": 4, "temperature": 1.0} | COMMON | change
    with pytest.raises(UserError, match=message):
        sample_tokens(model, [[4, 5, 6]], **settings)


def test_empty_prompts(model):
    with pytest.raises(UserError, match=r"prompt_ids\[1\] is empty"):
        sample_tokens(model, [[4], []], max_new_tokens=4, temperature=1.0, **COMMON)
    assert sample_tokens(model, [], max_new_tokens=4, temperature=1.0, **COMMON) == []


def test_min_p_leaves_out_what_is_unlikely_beside_the_likeliest():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    drawn = torch.cat([pick_tokens(logits, torch.tensor([u / 1000]), 1.0, 1.0, 0, 0.2)[0] for u in range(1000)])
    share = torch.bincount(drawn, minlength=4) / 1000
    assert share.tolist() == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], abs=2e-3)
    with pytest.raises(UserError, match="min_p=1"):
        sample_tokens(None, [], max_new_tokens=1, temperature=1, eos_token_ids=set(), pad_token_id=0, min_p=1)
