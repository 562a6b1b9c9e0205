"""A causal model of four thousand parameters, in float64 so that no batching can tip a greedy choice."""

from __future__ import annotations

import pytest
import torch

EOS, PAD = 1, 0
VOCABULARY = 24


def tiny_llama(*, kv_heads: int = 2, **config):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 128,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "bos_token_id": None,
        "initializer_range": 0.4,
    }
    return LlamaForCausalLM(LlamaConfig(**settings | config)).double().eval()


@pytest.fixture(scope="session")
def model():
    return tiny_llama(kv_heads=1)


@pytest.fixture(scope="session")
def prompts():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (28,), generator=generator).tolist()
    return [torch.randint(2, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
