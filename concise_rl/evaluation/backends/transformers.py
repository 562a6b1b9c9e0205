"""Completions from a transformers causal LM on its own device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from concise_rl.errors import UserError
from concise_rl.evaluation.backends.base import Completion, Finished, Request, Sampling
from concise_rl.rollouts import single_token, think_length

FINGERPRINT_VALUES = 64
"""So many values of each parameter tell two checkpoints of one folder apart; training moves all of them."""


@dataclass(frozen=True)
class TransformersBackend:
    """`concise_rl.model.sampling`: prompts sorted by length, finished rows leave, waiting ones take their place.

    What a completion is depends on its seed and its prompt, not on the other requests or on `batch_rows` (up to the
    rounding of the model's arithmetic).

    A prompt rendered with a chat template holds the special tokens it wants; where the tokenizer has no template it
    adds its own, such as BOS.

    Args:
        model, tokenizer: a transformers causal LM, not wrapped, and its tokenizer.
        batch_rows: most completions that are sampled at once.
    """

    model: Any
    tokenizer: Any
    batch_rows: int = 128

    def generate(self, requests: Sequence[Request], sampling: Sampling, finished: Finished) -> None:
        """See `Backend.generate`.

        Raises:
            UserError: a tokenizer without EOS, or a setting that `concise_rl.model.sampling.sample_tokens` refuses.
        """
        from concise_rl.model.sampling import sample_tokens

        eos_ids = eos_token_ids(self.model, self.tokenizer)
        tag = single_token(self.tokenizer, sampling.think_end)

        def complete(row: int, ids: list[int]) -> None:
            completion = Completion(
                text=self.decode(ids),
                length=len(ids),
                truncated=ids[-1] not in eos_ids,
                think_length=think_length(ids, tag),
                tokens=tuple(ids),
            )
            finished(row, completion)

        sample_tokens(
            self.model,
            [self._ids(request) for request in requests],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            eos_token_ids=eos_ids,
            pad_token_id=self._pad_id(eos_ids),
            seeds=[request.seed for request in requests],
            batch_rows=self.batch_rows,
            on_finished=complete,
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of all but EOS and padding: a tokenizer may count `</think>` among its special tokens."""
        eos_ids = eos_token_ids(self.model, self.tokenizer)
        silent = eos_ids | {self._pad_id(eos_ids)}
        return self.tokenizer.decode([token for token in token_ids if token not in silent])

    def identity(self) -> dict[str, Any]:
        """Path and a fingerprint of the weights: a folder keeps its name when its checkpoint is trained on."""
        digest = hashlib.blake2b(digest_size=8)
        for name, parameter in self.model.named_parameters():
            # Of a sharded parameter this rank's part: an identity must not cost a collective.
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            values = local.detach().flatten()[:FINGERPRINT_VALUES].float().cpu().numpy()
            digest.update(f"{name}{tuple(parameter.shape)}".encode() + values.tobytes())
        path = getattr(self.model.config, "_name_or_path", "")
        return {"backend": "transformers", "model": path, "weights": digest.hexdigest()}

    def _pad_id(self, eos_ids: set[int]) -> int:
        pad_id = self.tokenizer.pad_token_id
        return pad_id if pad_id is not None else min(eos_ids)

    def _ids(self, request: Request) -> list[int]:
        return prompt_ids(self.tokenizer, request)


def prompt_ids(tokenizer: Any, request: Request) -> list[int]:
    """All that stands before the first token to be sampled; what was sampled earlier keeps its own tokens."""
    ids = list(tokenizer(request.prompt, add_special_tokens=not tokenizer.chat_template)["input_ids"])
    if request.start is not None:
        if request.start.token_ids is None:
            raise UserError("a completion without token ids cannot be continued: sample its start with the same model")
        ids += request.start.token_ids
    if request.closing:
        ids += tokenizer(request.closing, add_special_tokens=False)["input_ids"]
    return ids


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
