"""Rendered prompts to completions, several samples each, with transformers on the model's own device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from concise_rl.errors import UserError
from concise_rl.sampling import sample_tokens

Progress = Callable[[int, int], None]
"""Called with the completions that are finished so far, and how many there will be."""


@dataclass(frozen=True)
class Completion:
    """What the model said once.

    Attributes:
        token_ids: the sampled tokens, EOS included.
        text: the same without special tokens that end or pad; a think tag stays.
        truncated: the limit came before EOS.
    """

    token_ids: list[int]
    text: str
    truncated: bool


def generate_completions(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    seed: int,
    batch_rows: int = 128,
    on_progress: Progress | None = None,
) -> list[list[Completion]]:
    """`samples` completions for each rendered prompt, P lists in the order of the prompts.

    Prompts are tokenised without special tokens: a rendered prompt holds those that it wants. The longest prompts go
    first, and a waiting prompt takes the place of a finished row (`concise_rl.sampling`). `temperature=0` is greedy.
    What a row samples depends on the seed and its place among the rows, not on `batch_rows`, up to the rounding of
    the model's own arithmetic.

    Raises:
        UserError: `samples` below 1, a tokenizer without EOS, or a setting that `sample_tokens` refuses.
    """
    if samples < 1:
        raise UserError(f"samples={samples}: each prompt needs one completion or more")
    eos_ids = eos_token_ids(model, tokenizer)
    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    rows = [ids for ids in encoded for _ in range(samples)]

    def finished(count: int) -> None:
        if on_progress is not None:
            on_progress(count, len(rows))

    sampled = sample_tokens(
        model,
        rows,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        eos_token_ids=eos_ids,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids),
        generator=torch.Generator().manual_seed(seed),
        batch_rows=batch_rows,
        on_finished=finished,
    )
    completions = [Completion(ids, completion_text(tokenizer, ids, eos_ids), ids[-1] not in eos_ids) for ids in sampled]
    return [completions[start : start + samples] for start in range(0, len(completions), samples)]


def eos_token_ids(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a completion: the tokenizer's and the model's, which for chat models are often two.

    Raises:
        UserError: neither names one, so no completion could end.
    """
    generation_config = getattr(model, "generation_config", None)
    named = getattr(generation_config, "eos_token_id", None)
    ids = set(named if isinstance(named, Iterable) else [] if named is None else [named])
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    if not ids:
        raise UserError(
            "tokenizer.eos_token is None: no completion could end; set it, for example tokenizer.eos_token='</s>'"
        )
    return ids


def completion_text(tokenizer: Any, token_ids: Sequence[int], eos_ids: set[int]) -> str:
    """The text a verifier reads: all tokens but the EOS that ends them.

    Other special tokens stay, for a tokenizer may count `</think>` among them.
    """
    ids = list(token_ids)
    if ids and ids[-1] in eos_ids:
        ids.pop()
    return tokenizer.decode(ids, skip_special_tokens=False)
