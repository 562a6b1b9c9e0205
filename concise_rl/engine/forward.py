"""`ForwardTrainer`: the forward passes of TRL's GRPO trainer, without what does not count.

Sampling lets finished rows leave the batch, and log-probs are computed by micro-batches of like length straight from
hidden states, prompts once for all of their completions. What a run asks of a model is checked before it trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather, is_peft_model
from torch import Tensor
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from concise_rl.engine.fields import LeanConfig
from concise_rl.errors import UserError
from concise_rl.kernels import TokenLoss
from concise_rl.kernels.arguments import Entropy
from concise_rl.model.cache import check_context, positions, rotary_switch, supports_plain_cache, takes_positions
from concise_rl.model.check import check_scoring, sample_tokens_of
from concise_rl.model.sampling import sample_tokens
from concise_rl.model.scoring import Rows, Scoring, add_scoring_head, microbatches, score_rows
from concise_rl.model.shared_prompts import DistinctPrompts, PromptStates, SharedPrompts


class ForwardTrainer(GRPOTrainer):
    """A `trl.GRPOTrainer` that samples and scores leanly; its loss is still TRL's.

    Args:
        args: a `LeanConfig`.

    Raises:
        UserError: images, a mixture of experts with a load-balancing loss, or a model whose log-probs cannot be had
            from its hidden states (`concise_rl.model.check`).
    """

    args: LeanConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refuse_what_is_not_trained()
        self._prepare_models()

    def _refuse_what_is_not_trained(self) -> None:
        images = {"image", "images"} & set(getattr(self.train_dataset, "column_names", None) or ())
        if self._is_vlm or images:
            raise UserError(
                "images do not reach the loss, and the vision tower would not learn: train on text, with the model's "
                "tokenizer as processing_class and no column image or images"
            )
        if self.aux_loss_enabled:
            raise UserError(
                f"trainer.router_aux_loss_coef={self.router_aux_loss_coef}, the model's own where none is set: the "
                "load-balancing loss of experts depends on how a step is cut into micro-batches, and is not trained "
                "here; set trainer.router_aux_loss_coef=0"
            )
        check_context(self.model.config, self.max_completion_length + 1, "lower trainer.max_completion_length")

    def _prepare_models(self) -> None:
        """Give policy and reference a scoring head, and see that it gives the model's own log-probs."""
        args = self.args
        self._sharded = self.is_fsdp_enabled or is_deepspeed_zero3_enabled()
        self._through_trl = args.cast_lm_head_to_fp32
        # Recomputed activations leave no cache; DeepSpeed's engine knows one backward pass a forward, and FSDP2 lets
        # the weights of the first go before the second.
        special = self._sharded or self._through_trl or self.is_deepspeed_enabled or args.gradient_checkpointing
        self._share_prompts = not special
        if self._through_trl:
            return
        config = self.model.config.get_text_config()
        tokens = sample_tokens_of(self._tokenizer, config.vocab_size)
        for model in map(self.accelerator.unwrap_model, filter(None, (self.model, self.ref_model))):
            base = model.get_base_model() if is_peft_model(model) else model
            add_scoring_head(base)
            plain = supports_plain_cache(base)
            self._share_prompts &= plain
            if not self._sharded:  # nobody holds all weights, so there is no forward pass to compare with
                check_scoring(model, tokens, self._tokenizer.pad_token_id, plain_cache=plain)

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    # -- sampling -----------------------------------------------------------------------------------------------------

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, *args, **kwargs):
        if not self._samples_itself(images, multimodal_fields):
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)
        limits = [self.max_completion_length] * len(prompt_ids)
        if "has_tool_images" in kwargs:  # a later turn: what is left of the context, which ends the row cleanly
            context = getattr(self.model.config, "max_position_embeddings", None) or float("inf")
            limits = [int(min(self.max_completion_length, context - len(ids))) for ids in prompt_ids]
        sampled: list[list[int]] = [[] for _ in prompt_ids]
        with self.generation_model() as model:
            for limit in sorted(set(limits)):
                rows = [row for row, own in enumerate(limits) if own == limit]
                for row, ids in zip(rows, self._draw(model, [prompt_ids[row] for row in rows], limit), strict=True):
                    sampled[row] = ids
        return sampled, None

    def _draw(
        self, model: Any, prompt_ids: Sequence[Sequence[int]], limit: int, seeds: Sequence[int] | None = None
    ) -> list[list[int]]:
        """Up to `limit` tokens for each prompt by our sampling loop, with the run's settings."""
        return sample_tokens(model, prompt_ids, seeds=seeds, **self._draw_settings(limit))

    def _draw_settings(self, limit: int) -> dict[str, Any]:
        return {
            "max_new_tokens": limit,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "eos_token_ids": set(self.eos_token_ids),
            "pad_token_id": self._tokenizer.pad_token_id,
        }

    def _samples_itself(self, images: Any, multimodal_fields: Any) -> bool:
        """Our sampling loop serves text with temperature, top-p and top-k; anything else goes to TRL's back ends."""
        special = other_back_end(self.args) or images is not None or multimodal_fields or self.is_fsdp_enabled
        return not special and supports_plain_cache(self.accelerator.unwrap_model(self.model))

    @contextmanager
    def generation_model(self) -> Iterator[Any]:
        """The plain model in evaluation mode, its shards gathered where it is sharded, without gradients."""
        training = self.model.training
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
        ):
            model.eval()
            try:
                yield model
            finally:
                model.train(training)

    # -- scoring ------------------------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **options
    ):
        """TRL's scoring pass without its padding; what images and experts would ask for is refused at the start."""
        rows = Rows.of(input_ids, attention_mask, logits_to_keep)
        entropy: Entropy = "none"
        if compute_entropy:
            entropy = "grad" if torch.is_grad_enabled() else "nograd"
        prompts = None if torch.is_grad_enabled() else self._prompts_to_share(rows)
        parts = microbatches(rows, self.args.max_tokens_per_microbatch, with_prompts=prompts is None)
        if self._sharded:  # every rank's forward gathers weights from the others, so all take as many
            parts += [parts[-1]] * (self._passes(len(parts)) - len(parts))
        shared = self._run_prompts(model, prompts)

        def score(some: Rows, part: Tensor) -> tuple[Tensor, Tensor | None]:
            return self._score_microbatch(model, some, entropy, prompts=shared.take(part) if shared else None)[1:]

        return *score_rows(rows, parts, score), None

    def _prompts_to_share(self, rows: Rows, active_N: Tensor | None = None) -> DistinctPrompts | None:
        """The distinct prompts of the active rows, where each serves two rows or more; else None."""
        count = len(rows) if active_N is None else int(active_N.sum())
        if not (self._share_prompts and count):
            return None
        prompts = DistinctPrompts.among(rows.prompt_ids, rows.prompt_mask, active_N)
        fits = prompts.ids.numel() <= self.args.max_tokens_per_microbatch
        return prompts if fits and 2 * len(prompts.ids) <= count else None

    def _run_prompts(self, model: Any, prompts: DistinctPrompts | None) -> SharedPrompts | None:
        if prompts is None:
            return None
        with self.accelerator.autocast():
            states = model(input_ids=prompts.ids, attention_mask=prompts.mask, scoring=PromptStates)
        return SharedPrompts(prompts.of_row_N, states)

    def _score_microbatch(
        self,
        model: Any,
        rows: Rows,
        entropy: Entropy,
        token_loss: TokenLoss | None = None,
        prompts: PromptStates | None = None,
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Loss, log-probs and entropies of rows that are padded to one length, through the model's own forward."""
        input_ids, attention_mask = rows.completion_ids, rows.completion_mask
        if rotary_switch(self.model.config) is not None:
            longest = int((rows.prompt_mask.sum(dim=1) + rows.lengths_N).max())
            check_context(self.model.config, longest, "lower trainer.max_completion_length")
        if prompts is None:
            input_ids = torch.cat([rows.prompt_ids, input_ids], dim=1)
            attention_mask = torch.cat([rows.prompt_mask, attention_mask], dim=1)
        if self._through_trl:
            return None, *self._score_through_trl(model, input_ids, attention_mask, rows.completion_mask)
        scoring = Scoring(rows.loss_mask, self.temperature, entropy, token_loss, prompts)
        with self.accelerator.autocast():
            return model(input_ids=input_ids, attention_mask=attention_mask, scoring=scoring)

    def _score_through_trl(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probs and entropies, (N, T) each, by TRL's head, which alone casts itself to float32."""
        completion_T = completion_mask.shape[1]
        labels = input_ids.masked_fill(attention_mask == 0, -100)
        labels[:, :-completion_T] = -100
        backbone = (self.model.get_base_model() if is_peft_model(self.model) else self.model).base_model
        places = {"position_ids": positions(attention_mask)} if takes_positions(backbone) else {}
        with self.accelerator.autocast():
            scored = model(
                input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=True, **places
            )
        entropy = None if scored.entropy is None else scored.entropy[:, -completion_T:]  # the reference's head has none
        return scored.log_probs[:, -completion_T:], entropy

    def _passes(self, own: int) -> int:
        """The most passes that a rank needs, one or more."""
        return int(gather(torch.tensor([max(1, own)], device=self.accelerator.device)).max())


def other_back_end(args: Any) -> str | None:
    """The first field that hands sampling to one of TRL's back ends, None where our own loop samples."""
    fields = ("use_vllm", "use_transformers_continuous_batching", "min_p", "generation_kwargs", "cache_implementation")
    if args.repetition_penalty not in (None, 1.0):
        return "repetition_penalty"
    return next((name for name in fields if getattr(args, name)), None)
