"""Log-probs of completions under a model, and a policy loss of them, without computing padding.

Rows are scored in micro-batches of like length, each trimmed to its own longest. The values are those of one padded
pass, to rounding: attention is causal, so what stands behind a row's end changes nothing before it.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from concise_rl.errors import UserError
from concise_rl.kernels import TokenLoss, linear_logprob, linear_policy_loss
from concise_rl.kernels.arguments import Entropy
from concise_rl.model.cache import positions, takes_positions
from concise_rl.model.sharded_head import whole
from concise_rl.model.shared_prompts import PromptStates


@dataclass(frozen=True)
class Rows:
    """N prompts, padded on the left to P columns, with their completions, padded on the right to T columns.

    Attributes:
        prompt_ids, prompt_mask: (N, P).
        completion_ids: (N, T).
        completion_mask: (N, T), 1 up to a row's end.
        loss_mask: (N, T), 1 where a token is scored; without tool output, for one.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    loss_mask: Tensor

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @classmethod
    def of(cls, input_ids: Tensor, attention_mask: Tensor, completion_T: int) -> Rows:
        """Rows of ids and mask (N, P + T), every token of a completion scored."""
        prompt_P = input_ids.shape[1] - completion_T
        mask = attention_mask[:, prompt_P:]
        return cls(input_ids[:, :prompt_P], attention_mask[:, :prompt_P], input_ids[:, prompt_P:], mask, mask)

    @property
    def lengths_N(self) -> Tensor:
        """Tokens of each completion."""
        return self.completion_mask.sum(dim=1)

    def take(self, rows: Tensor) -> Self:
        """These rows, trimmed to the longest prompt and the longest completion among them."""
        prompt_P = max(1, int(self.prompt_mask[rows].sum(dim=1).max()))
        completion_T = max(1, int(self.lengths_N[rows].max()))
        taken = {}
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if values is not None:
                columns = slice(-prompt_P, None) if field.name.startswith("prompt") else slice(completion_T)
                taken[field.name] = values[rows, columns]
        return type(self)(**taken)


@dataclass(frozen=True)
class LossRows(Rows):
    """Rows with what a policy loss needs beside their log-probs.

    Attributes:
        weight: (N, T), of each token's loss in the sum.
        credit: (N, T) or (N, 1).
        old_logprob, reference_logprob: (N, T), or None where the loss needs none.
        sampler_logprob: (N, T), under the engine that sampled, where it is another.
        entropy_weight: (N, T), of each token's entropy in the entropy bonus, where there is one.
    """

    weight: Tensor
    credit: Tensor
    old_logprob: Tensor | None = None
    reference_logprob: Tensor | None = None
    sampler_logprob: Tensor | None = None
    entropy_weight: Tensor | None = None

    def idle(self) -> LossRows:
        """The shortest row, counting nothing: a pass for ranks that must take as many as the busiest one."""
        row = self.take(self.lengths_N.argmin()[None])
        bonus = None if row.entropy_weight is None else torch.zeros_like(row.entropy_weight)
        return dataclasses.replace(row, weight=torch.zeros_like(row.weight), entropy_weight=bonus)


def microbatches(
    rows: Rows, max_tokens: int, active_N: Tensor | None = None, *, with_prompts: bool = True
) -> list[Tensor]:
    """The places of the active rows, in micro-batches of like length of at most `max_tokens` tokens, padding too.

    A row that is longer than that has a micro-batch of its own.

    Args:
        active_N: the rows that are to be scored; all of them when None.
        with_prompts: whether a row's prompt is computed with it, and counts.
    """
    lengths_N = rows.lengths_N
    order = lengths_N.argsort(descending=True, stable=True)
    chosen = order if active_N is None else order[active_N[order]]
    prompts = (rows.prompt_mask.sum(dim=1)[chosen] * with_prompts).tolist()
    completions = lengths_N[chosen].tolist()
    starts, longest_P, longest_T = [0] if len(chosen) else [], 0, 0
    for place, (prompt_P, completion_T) in enumerate(zip(prompts, completions, strict=True)):
        longest_P, longest_T = max(longest_P, prompt_P), max(longest_T, completion_T)
        if place > starts[-1] and (place + 1 - starts[-1]) * (longest_P + longest_T) > max_tokens:
            starts.append(place)
            longest_P, longest_T = prompt_P, completion_T
    ends = [*starts[1:], len(chosen)]
    return [chosen[start:end] for start, end in zip(starts, ends, strict=False)]


# --- one forward ------------------------------------------------------------------------------------------------------


Scored = tuple[Tensor | None, Tensor, Tensor | None]
"""The loss, if one was asked for, log-probs (N, T), and entropies (N, T), 0 where the mask is."""


@dataclass(frozen=True)
class Scoring:
    """Given to a model's forward as `scoring`, asks for log-probs of the last T tokens instead of logits.

    Attributes:
        mask_NT: 1 where a token is scored.
        temperature: the logits are divided by it.
        entropy: as in `linear_logprob`.
        token_loss: as in `linear_policy_loss`; then the loss is made in the same sweep.
        prompts: the states of the rows' prompts where these were computed before; then the inputs are completions.
    """

    mask_NT: Tensor
    temperature: float
    entropy: Entropy
    token_loss: TokenLoss | None = None
    prompts: PromptStates | None = None

    def run(self, model: Any, *, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Scored:
        # An adapter's wrapper adds what a forward may be asked for; log-probs need none of it.
        completion_T = self.mask_NT.shape[1]
        if self.prompts is None:
            # Few backbones derive places from the mask: others would count padding on the left.
            places = {"position_ids": positions(attention_mask)} if takes_positions(model.base_model) else {}
            output = model.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **places)
            states_NTH = output.last_hidden_state[:, -completion_T - 1 : -1]
        else:
            states_NTH = self.prompts.continued(model, input_ids, attention_mask)
        head = model.get_output_embeddings()
        arguments = states_NTH, whole(head.weight), input_ids[:, -completion_T:]
        options: dict[str, Any] = {"bias": whole(head.bias), "mask": self.mask_NT, "temperature": self.temperature}
        options |= {"entropy": self.entropy} | logit_options(model.config.get_text_config())
        if self.token_loss is None:
            logprob, entropy, _ = linear_logprob(*arguments, **options)
            return None, logprob, entropy
        loss, (logprob, entropy, _) = linear_policy_loss(*arguments, self.token_loss, **options)
        return loss, logprob, entropy


def add_scoring_head(model: Any) -> None:
    """Let `model(input_ids=..., attention_mask=..., scoring=Scoring(...))` return `Scored`; other calls are as before.

    The call goes through the model's own forward, so that whatever wraps the model (DDP, autocast) sees it. In place of
    a `Scoring` whatever has its `run` may stand, as `PromptStates` does.

    Raises:
        UserError: the model is not split into a backbone and a head, or the head is no plain linear layer (an adapter
            on it, for one).
    """
    if model.base_model is model:
        raise UserError(
            f"{type(model).__name__} is not split into a backbone and a head, from which log-probs are computed: this "
            "model cannot be trained here"
        )
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise UserError(
            f"the language-model head is a {type(head).__name__}, and log-probs are computed from a plain linear one: "
            "take lm_head out of the adapter's target modules"
        )
    original = model.forward

    @functools.wraps(type(model).forward)  # `generate` looks at the signature
    def forward(self: Any, *args: Any, scoring: Any = None, **kwargs: Any) -> Any:
        return original(*args, **kwargs) if scoring is None else scoring.run(self, **kwargs)

    model.forward = types.MethodType(forward, model)


SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What configurations call the soft-cap of their logits."""


def logit_options(config: Any) -> dict[str, float | None]:
    """Soft-cap and scale that a model's own forward applies to its logits, by the names in its configuration."""
    scale = next(
        (
            value
            for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")
            if (value := getattr(config, name, None)) is not None
        ),
        None,
    )
    scaling = getattr(config, "logits_scaling", None)
    if scale is None and scaling is not None:  # HyperCLOVA X multiplies by what Granite and MiniCPM divide by
        scale = scaling if config.model_type == "hyperclovax" else 1 / scaling
    cap = next((value for name in SOFTCAPS if (value := getattr(config, name, None)) is not None), None)
    return {"logit_scale": 1.0 if scale is None else scale, "softcap": cap}


# --- many rows --------------------------------------------------------------------------------------------------------


def score_rows(
    rows: Rows, parts: Sequence[Tensor], score: Callable[[Rows, Tensor], tuple[Tensor, Tensor | None]]
) -> tuple[Tensor, Tensor | None]:
    """Log-probs and entropies, (N, T) each, 0 in rows of no part and behind a row's end.

    Args:
        parts: places of rows that are scored together, from `microbatches`.
        score: log-probs and entropies, (n, t), of some rows and their places.
    """
    n_rows, columns = rows.completion_ids.shape
    scored = [score(rows.take(part), part) for part in parts]

    def whole(values: list[Tensor]) -> Tensor:
        wide = torch.cat([nn.functional.pad(some, (0, columns - some.shape[1])) for some in values])
        return wide.new_zeros(n_rows, columns).index_copy(0, torch.cat(list(parts)), wide)

    entropies = [entropy for _, entropy in scored if entropy is not None]
    return whole([logprob for logprob, _ in scored]), whole(entropies) if entropies else None
