"""Before a model trains: are its log-probs, as they are computed here, those of its own forward?

Log-probs are made from hidden states and head, of rows that are padded and cut. A model may do more to its logits than
its configuration says, read padding, or keep more than keys and values of a prompt. Such a model is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from concise_rl.errors import UserError
from concise_rl.model.sampling import evaluating, left_pad
from concise_rl.model.scoring import Scoring
from concise_rl.model.shared_prompts import DistinctPrompts, PromptStates, SharedPrompts

SAMPLE = "One and two are three, and three and four are seven. So the answer is 7, not 12."
"""Some text: a trained model's log-probs of it are moderate, so that rounding is told from a mistake."""

PROMPTS = (2, 5)
"""Tokens of the two rows' prompts: the first is padded on the left."""


def sample_tokens_of(tokenizer: Any, vocabulary: int) -> list[int]:
    """Sixteen tokens of `SAMPLE`, and the vocabulary's own in order where the tokenizer knows too few of it."""
    known = [token for token in tokenizer(SAMPLE)["input_ids"] if token < vocabulary]
    return [*known, *(n % vocabulary for n in range(16))][:16] if len(known) < 16 else known[:16]


@torch.no_grad()
def check_scoring(model: Any, tokens: Sequence[int], pad_token_id: int, *, plain_cache: bool) -> None:
    """Score a row as training does, alone and padded beside another, and compare with the model's own logits.

    Args:
        model: with a scoring head (`scoring.add_scoring_head`), its weights all here.
        tokens: eight or more that the model may see.
        plain_cache: whether rows are to go on from cached prompts, as shared prompts and our own sampling do.

    Raises:
        UserError: the model cannot be run so, its log-probs are not finite, are not those of its own logits, or depend
            on padding, on later tokens, or on where a prompt was cached.
    """
    name = type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
    allowed = 5e-3 if model.dtype in (torch.float32, torch.float64) else 0.3
    rows, prompts = zip(*_rows(tokens), strict=True)

    def compare(expected: Sequence[Tensor], found: Sequence[Tensor], fault: str) -> None:
        distance = max(float((a - b[: len(a)]).abs().mean()) for a, b in zip(expected, found, strict=True))
        if not distance <= allowed:
            raise UserError(f"{name}: {fault} (by {distance:.2g} nats on average): this model cannot be trained here")

    try:
        with evaluating(model):
            alone = [_scored(model, [row], [prompt], pad_token_id)[0] for row, prompt in _rows(tokens)]
            logits = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0, :-1]
            other_end = _scored(model, [[*tokens[:-2], tokens[0], tokens[1]]], prompts[1:], pad_token_id)
            padded = _scored(model, rows, prompts, pad_token_id)
            cached = _scored(model, rows, prompts, pad_token_id, share=True) if plain_cache else alone
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{name}: its backbone and head cannot score a row ({type(error).__name__}: {reason}): this model cannot "
            "be trained here"
        ) from error
    _compare_with_logits(name, alone[1], logits, tokens)
    compare([alone[1][:-2]], other_end, "a token's log-prob depends on those that come after it")
    compare(alone, padded, "a row padded beside a longer one has other log-probs than alone")
    compare(alone, cached, "a row that goes on from its cached prompt has other log-probs than the whole row")


def _rows(tokens: Sequence[int]) -> list[tuple[list[int], int]]:
    """Two rows with the lengths of their prompts: a shorter one, and all tokens."""
    half = len(tokens) // 2
    return [(list(tokens[:half]), PROMPTS[0]), (list(tokens), PROMPTS[1])]


def _scored(
    model: Any, rows: Sequence[list[int]], prompts: Sequence[int], pad_token_id: int, *, share: bool = False
) -> list[Tensor]:
    """Log-probs and entropies of each row's completion, (T, 2), scored together."""
    prompt_ids, prompt_mask = left_pad(
        [row[:prompt] for row, prompt in zip(rows, prompts, strict=True)], pad_token_id, model.device
    )
    ids, mask = (
        half.flip(1)
        for half in left_pad(
            [row[: prompt - 1 : -1] for row, prompt in zip(rows, prompts, strict=True)], pad_token_id, model.device
        )
    )
    states = None
    if share:
        distinct = DistinctPrompts.among(prompt_ids, prompt_mask)
        made = model(input_ids=distinct.ids, attention_mask=distinct.mask, scoring=PromptStates)
        states = SharedPrompts(distinct.of_row_N, made).take(torch.arange(len(rows), device=model.device))
    scoring = Scoring(mask, 1.0, "nograd", prompts=states)
    given = (ids, mask) if share else (torch.cat([prompt_ids, ids], dim=1), torch.cat([prompt_mask, mask], dim=1))
    _, logprob, entropy = model(input_ids=given[0], attention_mask=given[1], scoring=scoring)
    return list(torch.stack([logprob, entropy], dim=2))


def _compare_with_logits(name: str, scored_T2: Tensor, logits_LV: Tensor, tokens: Sequence[int]) -> None:
    own_LV = torch.log_softmax(logits_LV.double(), dim=-1)
    targets = torch.tensor(tokens[1:], device=own_LV.device)
    expected_L2 = torch.stack(
        [own_LV.gather(1, targets[:, None])[:, 0], torch.special.entr(own_LV.exp()).sum(dim=1)], dim=1
    )
    if not bool(torch.isfinite(scored_T2).all() and torch.isfinite(expected_L2).all()):
        raise UserError(
            f"{name}: its log-probs are not finite: its weights hold NaN or overflow in {logits_LV.dtype}: load other "
            "weights, or model.dtype=float32"
        )
    difference = float((scored_T2 - expected_L2[-len(scored_T2) :]).abs().max())
    if difference > 1e-3 + 2 * torch.finfo(logits_LV.dtype).eps * float(logits_LV.abs().max()):
        raise UserError(
            f"{name}: log-probs from its hidden states and head differ by {difference:.2g} from those of its own "
            "logits: its forward does something between the two that its configuration does not name; this model "
            "cannot be trained here"
        )
