"""The floor of `benchmarks/step.py` counts the products of a known model, and makes them."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.step_floor import Pass, Product, generation_passes, prepared, products_of


@pytest.fixture
def model() -> Qwen2ForCausalLM:
    """One layer with 2 x 2 heads, so that every product has a shape of its own."""
    sizes = {"hidden_size": 8, "intermediate_size": 24, "vocab_size": 11, "head_dim": 2}
    return Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, **sizes))


def operations(products) -> int:
    return sum(count * 2 * p.batch * p.rows * p.inner * p.columns for p, count in products.items())


def test_products_are_those_of_the_layers_and_the_tokens(model):
    found = products_of(model, [Pass(rows=3, tokens=15, keys=7, scored=10)], backward=False)
    assert found == {
        Product(1, 15, 8, 8, right=True): 2,  # queries, and what attention gives
        Product(1, 15, 8, 4, right=True): 2,  # keys, values
        Product(1, 15, 8, 24, right=True): 2,
        Product(1, 15, 24, 8, right=True): 1,
        Product(1, 10, 8, 11, right=True): 1,
        Product(6, 10, 2, 7, right=True): 1,  # 5 tokens of 2 heads that share keys
        Product(6, 10, 7, 2): 1,
    }
    trained = products_of(model, [Pass(rows=3, tokens=15, keys=7, scored=10)], backward=True)
    assert operations(trained) == 3 * operations(found)


def test_generation_computes_a_prompt_once_and_rows_until_they_end():
    prompts = [[1, 2], [1, 2], [3, 4, 5, 6]]
    assert generation_passes(prompts, [3, 1, 2]) == [Pass(2, 6, 3, 2), Pass(2, 2, 4, 2), Pass(1, 1, 4, 1)]


def test_what_is_counted_can_be_made(model, monkeypatch):
    products, made = products_of(model, [Pass(3, 15, 7, 10)], backward=True), Counter[torch.Size]()

    def counting(multiply, a, b, out):
        made[a.shape + b.shape[-1:]] += 1
        return multiply(a, b, out=out)

    for name in ("mm", "bmm"):
        monkeypatch.setattr(torch, name, partial(counting, getattr(torch, name)))
    prepared(products, torch.float32)()
    wanted = Counter[torch.Size]()
    for p, count in products.items():
        wanted[torch.Size([*([p.batch] if p.batch > 1 else []), p.rows, p.inner, p.columns])] += count
    assert made == wanted
