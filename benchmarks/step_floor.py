"""The floor of a step: the bare matrix products that it cannot do without, and nothing else.

Counted are the products of every linear layer of the backbone, of attention, and of the head, forward and, for an
update, the two of each backward. Linear layers and the head multiply exactly the real tokens of a pass: no padding, no
row without credit, a prompt once for its group, and no last token, which predicts nothing. Attention is taken as if all
rows of a pass had their mean length, every token reading the whole row; queries that share a key-value head stand under
one another. Passes are those of the step: the prompts, then each micro-batch; in generation the prompts, then one pass
a token with the rows that are still alive. Not counted: embeddings, norms, softmax, activations, the loss, masks,
copies, autograd, the optimizer, drawing tokens.

Operands are ones in the layouts and the type of the model, in memory that all products share, so they are warmer in
cache than a model's can be. Products of one shape run one after the other, by `torch.mm` and `torch.bmm`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from concise_rl.engine.lean import LeanTrainer
from concise_rl.model.scoring import LossRows, microbatches


class Product(NamedTuple):
    """`batch` products of (rows, inner) and (inner, columns); `left` and `right` say which factor lies transposed."""

    batch: int
    rows: int
    inner: int
    columns: int
    left: bool = False
    right: bool = False


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    Attributes:
        rows: in the batch.
        tokens: fed, of all rows together.
        keys: that a token reads, its own row's.
        scored: places that the head reads, of all rows together.
    """

    rows: int
    tokens: int
    keys: int
    scored: int


def products_of(model: Any, passes: Sequence[Pass], *, backward: bool) -> Counter[Product]:
    """How often each product is made in these passes."""
    config, found = model.config.get_text_config(), Counter[Product]()
    head = model.get_output_embeddings()
    layers = [m for m in model.base_model.modules() if isinstance(m, nn.Linear) and m is not head]
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    for each in passes:
        for layer in layers:
            found += _linear(each.tokens, *layer.weight.shape, backward=backward)
        found += _linear(each.scored, *head.weight.shape, backward=backward)
        queries = round(each.tokens / each.rows) * heads // key_heads
        attention = _attention(each.rows * key_heads, queries, each.keys, size, backward=backward)
        for product, count in attention.items():
            found[product] += count * config.num_hidden_layers
    return found


def _linear(tokens: int, out: int, inner: int, *, backward: bool) -> Counter[Product]:
    forward = Product(1, tokens, inner, out, right=True)
    both = Product(1, tokens, out, inner), Product(1, out, tokens, inner, left=True)
    return Counter([forward, *both] if backward else [forward])


def _attention(batch: int, queries: int, keys: int, size: int, *, backward: bool) -> Counter[Product]:
    forward = [Product(batch, queries, size, keys, right=True), Product(batch, queries, keys, size)]
    both = [
        Product(batch, queries, size, keys, right=True),  # of the weights
        Product(batch, keys, queries, size, left=True),  # of the values
        Product(batch, queries, keys, size),  # of the queries
        Product(batch, keys, queries, size, left=True),  # of the keys
    ]
    return Counter(forward + both if backward else forward)


def update_passes(trainer: LeanTrainer, rows: LossRows) -> list[Pass]:
    """Those of one step of ours: the distinct prompts where they are shared, and the micro-batches."""
    active_N = trainer._active_rows(rows)
    prompts = trainer._prompts_to_share(rows, active_N)
    limit = trainer.args.max_tokens_per_microbatch
    found = []
    if prompts is not None:
        tokens = int(prompts.mask.sum())
        found.append(Pass(len(prompts.ids), tokens, round(tokens / len(prompts.ids)), 0))
    for part in microbatches(rows, limit, active_N, with_prompts=prompts is None):
        before = int(rows.prompt_mask[part].sum())
        fed, n = int(rows.lengths_N[part].sum()) - len(part), len(part)
        own = fed if prompts is not None else fed + before
        found.append(Pass(n, own, round((before + fed) / n), int(rows.loss_mask[part].sum())))
    return [each for each in found if each.tokens]


def generation_passes(prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Pass]:
    """The distinct prompts, and then a pass a token of the rows that have not ended."""
    distinct = {tuple(prompt) for prompt in prompts}
    tokens = sum(map(len, distinct))
    found = [Pass(len(distinct), tokens, round(tokens / len(distinct)), len(distinct))]
    for fed in range(1, max(lengths)):
        alive = [len(prompt) for prompt, length in zip(prompts, lengths, strict=True) if length > fed]
        found.append(Pass(len(alive), len(alive), round(sum(alive) / len(alive)) + fed, len(alive)))
    return found


def prepared(products: Counter[Product], dtype: torch.dtype) -> Callable[[], None]:
    """Makes all these products when called; memory and views are there before."""
    sizes = [
        (p.rows * p.inner * p.batch, p.inner * p.columns * p.batch, p.rows * p.columns * p.batch) for p in products
    ]
    memory = [torch.ones(max(of_factor), dtype=dtype) for of_factor in zip(*sizes, strict=True)]
    made = []
    for p, count in products.items():
        shapes = (p.rows, p.inner), (p.inner, p.columns), (p.rows, p.columns)
        a, b, out = (_view(m, p.batch, *s, t) for m, s, t in zip(memory, shapes, (p.left, p.right, False), strict=True))
        if p.batch == 1:
            made.append((torch.mm, a[0], b[0], out[0], count))
        else:
            made.append((torch.bmm, a, b, out, count))

    def run() -> None:
        for multiply, a, b, out, count in made:
            for _ in range(count):
                multiply(a, b, out=out)

    return run


def _view(memory: torch.Tensor, batch: int, rows: int, columns: int, transposed: bool) -> torch.Tensor:
    flat = memory[: batch * rows * columns]
    return flat.view(batch, columns, rows).mT if transposed else flat.view(batch, rows, columns)
