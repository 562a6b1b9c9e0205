"""A causal model of four thousand parameters, in float64 so that no batching can tip a greedy choice."""

from __future__ import annotations

import pytest
import torch

from concise_rl.data import Prompt
from concise_rl.verifiers import Verdict

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


WORDS = ["<pad>", "</s>", "<think>", "</think>", *"0123456789+-= ", "a", "b", "c", "d", "e", "f"]


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>")
    fast.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    return fast


@pytest.fixture(scope="session")
def talker():
    """A random model over the same words; it ends, and thinks, by chance."""
    return tiny_llama(vocab_size=len(WORDS), initializer_range=0.2)


class EvenLength:
    """Right where the text has an even number of characters; cannot read a text with an `a`."""

    hostile_input_safe = True

    def __call__(self, completion, reference):
        return Verdict.unscorable("an a") if "a" in completion else Verdict.of(len(completion) % 2 == 0, reference)


PROMPTS = [Prompt.of(f"{i}+{i * 7 % 10}=", str(i), difficulty=i % 3, oracle_tokens=5) for i in range(10)]
SETTINGS = {"max_new_tokens": 24, "temperature": 1.0, "seed": 3}
