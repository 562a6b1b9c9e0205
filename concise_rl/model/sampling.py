"""Sampling from a causal language model in plain PyTorch: ragged prompts in, ragged completions out.

One forward a token on left-padded rows and transformers' own key-value cache. Rows that have finished leave the cache
and waiting prompts take their place, so the batch stays full of rows that still think. Every row draws from a random
stream of its own: what a row samples does not depend on which rows share its batch, or on how many do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache

from concise_rl.errors import UserError
from concise_rl.model.cache import GrowingLayer, check_context, forward_parameters, positions, supports_plain_cache
from concise_rl.model.picking import check_finite, pick_tokens

COMPACT_SHARE = 0.1
"""Finished rows leave the cache once they are this share of its rows: a copy of the cache against idle rows."""

REFILL_SHARE = 0.1
"""While prompts wait, they take the places of finished rows once these are this share: a prefill against idle rows."""


@torch.no_grad()
def sample_tokens(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    eos_token_ids: set[int],
    pad_token_id: int,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_rows: int | None = None,
    on_finished: Callable[[int, list[int]], None] | None = None,
    on_drawn: Callable[[int, float], None] | None = None,
) -> list[list[int]]:
    """Sample one completion for each prompt; each ends with an EOS token or has `max_new_tokens` tokens.

    The next token is drawn from softmax(logits / temperature), cut to the `top_k` likeliest tokens, to the fewest of
    those that hold `top_p` of the probability, and to those with `min_p` of the likeliest one's or more. No other
    setting of the model's generation config applies: no repetition penalty, no banned tokens. The model samples in
    evaluation mode and gets its modes back afterwards.

    Args:
        model: a transformers causal LM, not wrapped. One whose cache is not a plain `DynamicCache` (sliding windows,
            linear attention, no `position_ids`: see `cache.supports_plain_cache`) samples through its own `generate`.
        prompt_ids: N prompts of one token or more, without padding.
        temperature: 0 is greedy.
        top_p: in (0, 1]; 1 keeps all.
        top_k: 0 keeps all.
        min_p: in [0, 1); 0 keeps all.
        generator: source of one seed a row, on the CPU; the global one when None. The same seed, model, prompts and
            machine give the same tokens.
        seeds: one a row, in place of the generator: a row then samples the same in any list of prompts.
        batch_rows: most rows that sample at once; all of them when None.
        on_finished: called with each row that has finished and its tokens, at once.
        on_drawn: called with row and log-prob of each token drawn, as `picking.pick_tokens` gives it.

    Raises:
        UserError: a setting outside its range, an empty prompt, a prompt with no room for `max_new_tokens`, or
            `on_drawn` for a model that samples through its own `generate`.
    """
    _check_settings(model, prompt_ids, max_new_tokens, temperature, top_p, top_k, min_p, batch_rows)
    if not prompt_ids:
        return []
    if seeds is None:
        seeds = torch.randint(2**62, (len(prompt_ids),), generator=generator).tolist()
    batch_rows = min(batch_rows or len(prompt_ids), len(prompt_ids))
    settings = _Settings(max_new_tokens, temperature, top_p, top_k, min_p, frozenset(eos_token_ids), pad_token_id)
    finished, drawn = on_finished or (lambda row, tokens: None), on_drawn or (lambda row, logprob: None)
    with evaluating(model), without_router_logits(model.config.get_text_config()), without_cudnn_attention():
        if supports_plain_cache(model):
            return _sample_with_cache(model, prompt_ids, seeds, settings, batch_rows, finished, drawn)
        if on_drawn is not None:
            raise UserError(
                f"{type(model).__name__} has no plain cache (concise_rl.model.cache): it samples without log-probs"
            )
        return _sample_with_generate(model, prompt_ids, seeds, settings, batch_rows, finished)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and afterwards each module's own mode again (parts of it may have been frozen)."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def without_router_logits(config: Any) -> Iterator[None]:
    """Experts' router logits are not asked for inside: of a cached prompt there are none, and the model would fail."""
    asked = getattr(config, "output_router_logits", False)
    if asked:
        config.output_router_logits = False
    try:
        yield
    finally:
        if asked:
            config.output_router_logits = True


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Not cuDNN's attention inside: it plans for each number of rows and columns anew, and here a column comes with
    every token (on an H100 3.7 times the time of sampling, docs/performance.md)."""
    chosen = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(chosen)


@dataclass(frozen=True)
class _Settings:
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    eos_token_ids: frozenset[int]
    pad_token_id: int


def _check_settings(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    batch_rows: int | None,
) -> None:
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens={max_new_tokens}: a completion needs room for one token or more")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature={temperature}: give 0 (greedy) or a positive number")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p={top_p}: give a share of the probability in (0, 1]; 1 keeps every token")
    if top_k < 0:
        raise UserError(f"top_k={top_k}: give a number of tokens; 0 keeps every token")
    if not 0 <= min_p < 1:
        raise UserError(f"min_p={min_p}: give a share of the likeliest token's in [0, 1); 0 keeps every token")
    if batch_rows is not None and batch_rows < 1:
        raise UserError(f"batch_rows={batch_rows}: at least one row samples at a time")
    for row, ids in enumerate(prompt_ids):
        if not ids:
            raise UserError(f"prompt_ids[{row}] is empty: a causal model needs one token or more to go on from")
    room = getattr(model.config, "max_position_embeddings", None)
    longest = max(map(len, prompt_ids), default=0)
    check_context(model.config, longest + max_new_tokens, f"max_new_tokens={max_new_tokens} is too many: lower it")
    if room is not None and 0 < room < longest + max_new_tokens:  # XLNet says -1 for no bound
        raise UserError(
            f"max_new_tokens={max_new_tokens}: with a prompt of {longest} tokens that is more than the model's "
            f"max_position_embeddings={room}; give at most {room - longest}, or shorten the prompts"
        )


# --- rows that sample together ----------------------------------------------------------------------------------------


_OF_A_ROW = ("logits_RV", "next_position_R", "last_position_R", "uniforms_RM", "drawn_R")
"""Fields of `_Live` that hold one entry a row, besides the mask and the cache."""


@dataclass
class _Live:
    """R rows that sample together: L columns of cache, right-aligned, so the newest token of every row is the last."""

    rows: list[int]
    cache: Any
    mask_RL: Tensor  # 1 where the cache holds a token of the row
    logits_RV: Tensor  # of the next token
    next_position_R: Tensor
    last_position_R: Tensor
    uniforms_RM: Tensor  # each row's random stream, M = max_new_tokens
    drawn_R: Tensor  # how many of them are used

    def select(self, rows: list[int]) -> _Live:
        """Keep these of the R rows, and only the columns that one of them uses."""
        self.rows = [self.rows[i] for i in rows]
        kept = torch.tensor(rows, device=self.mask_RL.device)
        mask_RL = self.mask_RL[kept]
        unused = int(mask_RL.argmax(dim=1).amin())
        self.mask_RL = mask_RL[:, unused:]
        for layer in self.cache.layers:
            layer.keep(kept, unused)
        for name in _OF_A_ROW:
            setattr(self, name, getattr(self, name)[kept])
        return self

    def refill(self, places: list[int], fresh: _Live) -> None:
        """Put the rows of `fresh` in the places of finished ones.

        They fit, because prompts come in sorted by length: what waits is never longer than what was there before. What
        a finished row leaves in columns before its successor's lies behind the mask.
        """
        slots = torch.tensor(places, device=self.mask_RL.device)
        columns = fresh.mask_RL.shape[1]
        for mine, theirs in zip(self.cache.layers, fresh.cache.layers, strict=True):
            mine.keys[slots, :, -columns:] = theirs.keys
            mine.values[slots, :, -columns:] = theirs.values
        self.mask_RL[slots] = 0
        self.mask_RL[slots, -columns:] = fresh.mask_RL
        for name in _OF_A_ROW:
            getattr(self, name)[slots] = getattr(fresh, name)
        for place, row in zip(places, fresh.rows, strict=True):
            self.rows[place] = row
        unused = int(self.mask_RL.argmax(dim=1).amin())
        self.mask_RL = self.mask_RL[:, unused:]
        for layer in self.cache.layers:
            layer.show(layer.start + unused, layer.keys.shape[2] - unused)

    def draw(self, settings: _Settings) -> tuple[Tensor, Tensor]:
        """The next token of each row and its log-prob, (R,) each."""
        uniform_R = self.uniforms_RM.gather(1, self.drawn_R[:, None]).squeeze(1)
        self.drawn_R = (self.drawn_R + 1).clamp(max=settings.max_new_tokens - 1)
        return pick_tokens(
            self.logits_RV, uniform_R, settings.temperature, settings.top_p, settings.top_k, settings.min_p
        )

    def advance(self, model: Any, tokens_R: Tensor) -> None:
        """Feed the tokens drawn: one column more of cache, new logits."""
        self.mask_RL = torch.cat([self.mask_RL, self.mask_RL.new_ones(len(self.rows), 1)], dim=1)
        output = model(
            input_ids=tokens_R[:, None],
            attention_mask=self.mask_RL,
            position_ids=self.next_position_R[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits_RV = output.logits[:, -1]
        # A finished row stays until its place is needed: its position must not run past the model's last one.
        self.next_position_R = torch.minimum(self.next_position_R + 1, self.last_position_R)


def _prefill(
    model: Any, rows: list[int], prompt_ids: Sequence[Sequence[int]], seeds: Sequence[int], settings: _Settings
) -> _Live:
    prompts = [tuple(prompt_ids[row]) for row in rows]
    distinct = list(dict.fromkeys(prompts))  # the rows of a group share theirs
    place = {prompt: q for q, prompt in enumerate(distinct)}
    of_row_R = torch.tensor([place[prompt] for prompt in prompts], device=model.device)
    ids_QL, mask_QL = left_pad(distinct, settings.pad_token_id, model.device)
    cache = Cache(layers=[GrowingLayer() for _ in DynamicCache(config=model.config).layers])
    # By index, as a slice is not contiguous, and torch's bfloat16 product on a CPU then copies the head for each row.
    last = torch.tensor([ids_QL.shape[1] - 1], device=model.device)
    keep = {"logits_to_keep": last} if "logits_to_keep" in forward_parameters(model) else {}
    output = model(
        input_ids=ids_QL,
        attention_mask=mask_QL,
        position_ids=positions(mask_QL),
        past_key_values=cache,
        use_cache=True,
        **keep,
    )
    if len(distinct) < len(rows):
        for layer in cache.layers:
            layer.hold(layer.keys[of_row_R], layer.values[of_row_R])
    mask_RL = mask_QL[of_row_R]
    length_R = mask_RL.sum(dim=1)
    streams = [torch.Generator().manual_seed(seeds[row]) for row in rows]
    uniforms = [torch.rand(settings.max_new_tokens, generator=stream, dtype=torch.float64) for stream in streams]
    return _Live(
        rows=rows,
        cache=cache,
        mask_RL=mask_RL,
        logits_RV=output.logits[of_row_R, -1],
        next_position_R=length_R,
        last_position_R=length_R + settings.max_new_tokens - 1,
        uniforms_RM=torch.stack(uniforms).to(model.device),
        drawn_R=torch.zeros_like(length_R),
    )


def left_pad(rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ragged token ids to (ids (R, L), mask (R, L)), both int64, the padding on the left and 0 in the mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad_token_id] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids.to(device), mask.to(device)


def _sample_with_cache(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    seeds: Sequence[int],
    settings: _Settings,
    batch_rows: int,
    on_finished: Callable[[int, list[int]], None],
    on_drawn: Callable[[int, float], None],
) -> list[list[int]]:
    completions: list[list[int]] = [[] for _ in prompt_ids]
    waiting = deque(sorted(range(len(prompt_ids)), key=lambda row: -len(prompt_ids[row])))
    done: set[int] = set()
    live = _prefill(model, [waiting.popleft() for _ in range(batch_rows)], prompt_ids, seeds, settings)
    while len(done) < len(prompt_ids):
        free = [i for i, row in enumerate(live.rows) if row in done]
        if waiting and len(free) >= REFILL_SHARE * batch_rows:
            fresh = [waiting.popleft() for _ in range(min(len(waiting), len(free)))]
            live.refill(free[: len(fresh)], _prefill(model, fresh, prompt_ids, seeds, settings))
        tokens_R, logprob_R = live.draw(settings)
        for row, token, logprob in zip(live.rows, tokens_R.tolist(), logprob_R.tolist(), strict=True):
            if row not in done:
                completions[row].append(token)
                on_drawn(row, logprob)
                if token in settings.eos_token_ids or len(completions[row]) == settings.max_new_tokens:
                    done.add(row)
                    on_finished(row, completions[row])
        kept = [i for i, row in enumerate(live.rows) if row not in done]
        if kept and not waiting and len(kept) <= (1 - COMPACT_SHARE) * len(live.rows):
            live.select(kept)
            tokens_R = tokens_R[torch.tensor(kept, device=tokens_R.device)]
        if kept:
            live.advance(model, tokens_R)
    return completions


def _finite(input_ids: Tensor, scores_RV: Tensor) -> Tensor:
    check_finite(scores_RV.max(dim=-1).values)
    return scores_RV


def _sample_with_generate(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    seeds: Sequence[int],
    settings: _Settings,
    batch_rows: int,
    on_finished: Callable[[int, list[int]], None],
) -> list[list[int]]:
    from transformers import GenerationConfig

    choice: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        choice = {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "min_p": settings.min_p or None,
        }
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=sorted(settings.eos_token_ids) or None,
        pad_token_id=settings.pad_token_id,
        repetition_penalty=1.0,
        **choice,
    )
    completions: list[list[int]] = [[] for _ in prompt_ids]
    order = sorted(range(len(prompt_ids)), key=lambda row: -len(prompt_ids[row]))
    for start in range(0, len(order), batch_rows):
        rows = order[start : start + batch_rows]
        ids_RL, mask_RL = left_pad([prompt_ids[row] for row in rows], settings.pad_token_id, model.device)
        # `generate` draws from the global generators alone.
        with torch.random.fork_rng():
            torch.manual_seed(seeds[rows[0]])
            output = model.generate(
                input_ids=ids_RL, attention_mask=mask_RL, generation_config=config, logits_processor=[_finite]
            )
        for row, tokens in zip(rows, output[:, ids_RL.shape[1] :].tolist(), strict=True):
            end = next((i + 1 for i, token in enumerate(tokens) if token in settings.eos_token_ids), len(tokens))
            completions[row] = tokens[:end]
            on_finished(row, completions[row])
    return completions
