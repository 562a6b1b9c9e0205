"""Rendered prompts to completions, several samples each, with transformers on the model's own device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from concise_rl.data.base import content_key
from concise_rl.errors import UserError

Progress = Callable[[int, int], None]
"""Called with the completions that are finished so far, and how many there will be."""


@dataclass(frozen=True)
class Completion:
    """What the model said once.

    Attributes:
        token_ids: the sampled tokens, EOS included.
        text: what the verifier reads: all of it but EOS and padding, think tags included.
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

    A waiting prompt takes the place of a finished row (`concise_rl.sampling`); `temperature=0` is greedy. What a
    completion is depends on the seed, the prompt's text and which of its samples it is: not on the other prompts, on
    `batch_rows`, or on how the prompts are shared out among processes (up to the rounding of the model's arithmetic).

    A prompt rendered with a chat template holds the special tokens it wants; where the tokenizer has no template it
    adds its own, such as BOS.

    Raises:
        UserError: `samples` below 1, a tokenizer without EOS, or a setting that `sample_tokens` refuses.
    """
    from concise_rl.sampling import sample_tokens

    if samples < 1:
        raise UserError(f"samples={samples}: each prompt needs one completion or more")
    eos_ids = eos_token_ids(model, tokenizer)
    rows, seeds = [], []
    seen: Counter[str] = Counter()
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=not tokenizer.chat_template)["input_ids"]
        for _ in range(samples):
            rows.append(ids)
            seeds.append(int(content_key(str(seed), prompt, str(seen[prompt])), 16) >> 1)
            seen[prompt] += 1

    def finished(count: int) -> None:
        if on_progress is not None:
            on_progress(count, len(rows))

    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids)
    sampled = sample_tokens(
        model,
        rows,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        eos_token_ids=eos_ids,
        pad_token_id=pad_id,
        seeds=seeds,
        batch_rows=batch_rows,
        on_finished=finished,
    )
    # Only EOS and padding are left out: a tokenizer may count `</think>` among its special tokens.
    silent = eos_ids | {pad_id}
    texts = tokenizer.batch_decode([[token for token in ids if token not in silent] for ids in sampled])
    completions = [
        Completion(ids, text, truncated=ids[-1] not in eos_ids) for ids, text in zip(sampled, texts, strict=True)
    ]
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
