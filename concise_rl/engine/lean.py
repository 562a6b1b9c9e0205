"""`LeanTrainer`: TRL's GRPO trainer whose step computes nothing that does not count.

Sampling lets finished rows leave the batch, log-probs are computed by micro-batches of like length straight from hidden
states, rows without credit are left out of forward and backward, and the loss has denominators of the whole optimizer
step. Loss and gradient are those of `trl.GRPOTrainer`, to rounding, where a step is one micro-batch on one rank; cut in
any other way they stay the same, which TRL's do not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather, is_peft_model
from torch import Tensor
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation

from concise_rl.errors import UserError
from concise_rl.kernels import TokenLoss
from concise_rl.kernels.arguments import Entropy
from concise_rl.methods.losses.policy_loss import LOSS_TYPES, PolicyLoss, StepTotals
from concise_rl.model.cache import supports_plain_cache
from concise_rl.model.sampling import sample_tokens
from concise_rl.model.scoring import LossRows, Rows, Scoring, add_scoring_head, microbatches, score_rows
from concise_rl.model.shared_prompts import DistinctPrompts, PromptStates, SharedPrompts


@dataclass
class ConciseConfig(GRPOConfig):
    """`trl.GRPOConfig`, and what it has no field for.

    Attributes:
        max_tokens_per_microbatch: tokens, padding included, that are scored in one forward and backward. The rows of a
            device's batch are cut into micro-batches of like length under it; it decides memory, never the result.
    """

    max_tokens_per_microbatch: int = field(
        default=16384, metadata={"help": "Tokens, padding included, in one forward and backward pass."}
    )

    def __post_init__(self) -> None:
        if self.max_tokens_per_microbatch < 1:
            raise UserError(f"trainer.max_tokens_per_microbatch={self.max_tokens_per_microbatch}: must be positive")
        if self.mask_truncated_completions:
            raise UserError(
                "trainer.mask_truncated_completions=true hides rows from the loss alone: set truncated=mask, which "
                "leaves them out of baseline and history too"
            )
        super().__post_init__()


class LeanTrainer(GRPOTrainer):
    """A `trl.GRPOTrainer` with a leaner step; arguments and results are TRL's.

    Options of TRL that the loss here does not know (VESPO, entropy bonus or mask, off-policy mask, MoE loss) take TRL's
    own path, with padding left out of it.
    """

    _current_train_step_time: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare_loss()

    def _prepare_loss(self) -> None:
        """Decide which loss this run computes and through which head."""
        args = self.args
        self.policy_loss = PolicyLoss(
            loss_type=self.loss_type,
            epsilon_low=self.epsilon_low,
            epsilon_high=self.epsilon_high,
            delta=args.delta,
            beta=self.beta,
            unbiased_kl=args.use_bias_correction_kl,
            sequence_level=self.importance_sampling_level == "sequence",
            sapo_temperatures=(args.sapo_temperature_pos, args.sapo_temperature_neg),
            max_completion_length=self.max_completion_length,
        )
        self._own_loss = (
            self.loss_type in LOSS_TYPES
            and not self._entropy_bonus_enabled
            and not self.aux_loss_enabled
            and self.top_entropy_quantile >= 1.0
            and self.off_policy_mask_threshold is None
            and not (self.use_vllm and self.vllm_importance_sampling_correction and self.beta)
        )
        self._sharded = self.is_fsdp_enabled or is_deepspeed_zero3_enabled() or args.cast_lm_head_to_fp32
        self._drop_idle_rows = self._fuse_loss = True
        # Recomputed activations leave no cache; DeepSpeed's engine knows one backward pass a forward.
        self._share_prompts = not (self._sharded or self.is_deepspeed_enabled or args.gradient_checkpointing)
        if not self._sharded:
            for model in filter(None, (self.model, self.ref_model)):
                base = model.get_base_model() if is_peft_model(model) else model
                self._share_prompts &= supports_plain_cache(base)
                add_scoring_head(base)

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    # -- sampling -----------------------------------------------------------------------------------------------------

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, *args, **kwargs):
        if not self._samples_itself(images, multimodal_fields):
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)
        with self.generation_model() as model:
            sampled = sample_tokens(
                model,
                prompt_ids,
                max_new_tokens=self.max_completion_length,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                eos_token_ids=set(self.eos_token_ids),
                pad_token_id=self._tokenizer.pad_token_id,
            )
        return sampled, None

    def _samples_itself(self, images: Any, multimodal_fields: Any) -> bool:
        """Our sampling loop serves text with temperature, top-p and top-k; anything else goes to TRL's back ends."""
        special = (
            self.use_vllm
            or self.use_transformers_continuous_batching
            or images is not None
            or multimodal_fields
            or self.min_p
            or self.repetition_penalty not in (None, 1.0)
            or self.args.generation_kwargs
            or self.is_fsdp_enabled
        )
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
        """TRL's scoring pass without its padding."""
        if any(option is not None and option is not False for option in options.values()):  # images, MoE
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **options
            )
        rows = Rows.of(input_ids, attention_mask, logits_to_keep)
        entropy: Entropy = "none"
        if compute_entropy:
            entropy = "grad" if torch.is_grad_enabled() else "nograd"
        prompts = None if torch.is_grad_enabled() else self._prompts_to_share(rows)
        parts = microbatches(rows, self.args.max_tokens_per_microbatch, with_prompts=prompts is None)
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
        if prompts is None:
            input_ids = torch.cat([rows.prompt_ids, input_ids], dim=1)
            attention_mask = torch.cat([rows.prompt_mask, attention_mask], dim=1)
        if self._sharded:  # TRL gathers the head where ZeRO-3 and FSDP2 have sharded it
            return None, *super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, rows.completion_ids.shape[1], None, entropy != "none"
            )[:2]
        scoring = Scoring(rows.loss_mask, self.temperature, entropy, token_loss, prompts)
        with self.accelerator.autocast():
            return model(input_ids=input_ids, attention_mask=attention_mask, scoring=scoring)

    # -- loss and gradient --------------------------------------------------------------------------------------------

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward of one accumulation step, in micro-batches under a budget of tokens."""
        if not self._own_loss:
            return super().training_step(model, inputs, num_items_in_batch)
        started = time.perf_counter()
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        rows = self._loss_rows(self._prepare_inputs(inputs))
        loss = self._forward_backward(model, rows)
        self._step += 1
        self._current_train_step_time += time.perf_counter() - started
        if self._step % self.current_gradient_accumulation_steps == 0:
            self._metrics["train"]["step_time"].append(self._current_train_step_time)
            self._current_train_step_time = 0.0
        return loss

    def _prepare_inputs(self, generation_batch):
        inputs = super()._prepare_inputs(generation_batch)
        if self._own_loss and self._mode == "train" and "weight" not in inputs:
            self._weigh(self._buffered_inputs)
        return inputs

    def _weigh(self, buffered: list[dict[str, Any]]) -> None:
        """Give every token of a generation its weight in the loss of its optimizer step."""
        masks = [inputs["completion_mask"] * inputs.get("tool_mask", 1) for inputs in buffered]
        own = torch.tensor([[mask.any(dim=1).sum(), mask.sum()] for mask in masks], dtype=torch.float64)
        counts = self.accelerator.reduce(own.to(self.accelerator.device, torch.float32), reduction="sum").tolist()
        steps = self.args.gradient_accumulation_steps
        # Where one optimizer step spans several generations, the later ones are taken to be like this one.
        span, scale = (steps, 1.0) if len(counts) % steps == 0 else (len(counts), steps / len(counts))
        mean_tokens = sum(tokens for _, tokens in counts) * steps / len(counts)
        for place, (inputs, mask) in enumerate(zip(buffered, masks, strict=True)):
            window = counts[place // span * span :][:span]
            rows, tokens = (scale * sum(column) for column in zip(*window, strict=True))
            inputs["weight"] = self.policy_loss.weights(mask, StepTotals(rows, tokens, mean_tokens))
            inputs["weight"] *= inputs.get("importance_sampling_ratio", 1.0)

    def _loss_rows(self, inputs: dict[str, Any]) -> LossRows:
        credit = inputs["advantages"]
        mask = inputs["completion_mask"]
        return LossRows(
            inputs["prompt_ids"],
            inputs["prompt_mask"],
            inputs["completion_ids"],
            mask,
            mask * inputs.get("tool_mask", 1),
            weight=inputs["weight"],
            credit=credit if credit.ndim == 2 else credit[:, None],
            old_logprob=inputs.get("old_per_token_logps"),
            reference_logprob=inputs.get("ref_per_token_logps"),
        )

    def _forward_backward(self, model: Any, rows: LossRows) -> Tensor:
        """The gradient of all rows; returns their loss, of all ranks together."""
        active_N = self._active_rows(rows)
        prompts = self._prompts_to_share(rows, active_N)
        parts = microbatches(rows, self.args.max_tokens_per_microbatch, active_N, with_prompts=prompts is None)
        # The prompts' backward knows not all parameters, so where ranks sum gradients, it must not be the last.
        own = len(parts) + (prompts is not None and self.accelerator.num_processes > 1)
        passes = int(gather(torch.tensor([max(1, own)], device=self.accelerator.device)).max())
        # Not before the gather: ranks that share and ranks that do not must meet the collectives of forward in order.
        with self.accelerator.no_sync(model):
            shared = self._run_prompts(model, prompts)
        last_of_step = self.accelerator.sync_gradients
        total, sums = torch.zeros((), device=self.accelerator.device), {"tokens": rows.loss_mask.sum().float()}
        for place in range(passes):
            mine, last = place < len(parts), place == passes - 1
            micro = rows.take(parts[place]) if mine else rows.idle()
            states = shared.take(parts[place]) if shared and mine else None
            self.accelerator.gradient_state._set_sync_gradients(last_of_step and last)
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss, found = self._loss_and_logs(model, micro, states)
                # DDP, FSDP and DeepSpeed average over ranks; the weights are those of a sum.
                options = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
                self.accelerator.backward(loss * self.accelerator.num_processes, **options)
                if shared and place == len(parts) - 1:
                    shared.backward()
            total += loss.detach()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * mine
        self._log_means(sums)
        return self.accelerator.reduce(total, reduction="sum")

    def _active_rows(self, rows: LossRows) -> Tensor | None:
        """The rows that can move the loss: with a KL term all, else those with credit."""
        if self.beta or not self._drop_idle_rows:
            return None
        return ((rows.credit != 0) & (rows.weight != 0)).any(dim=1)

    def _loss_and_logs(
        self, model: Any, rows: LossRows, prompts: PromptStates | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one micro-batch, and sums over its tokens for the logs."""
        own = self.policy_loss
        shape = rows.loss_mask.shape
        weight, credit = rows.weight, rows.credit.expand(shape)
        old, reference = rows.old_logprob, rows.reference_logprob

        def token_loss(logprob_K: Tensor, _: Tensor | None, rows_K: Tensor) -> Tensor:
            old_K = logprob_K.detach() if old is None else old.reshape(-1)[rows_K]
            reference_K = None if reference is None else reference.reshape(-1)[rows_K]
            losses_K = own.token_losses(logprob_K, old_K, credit.reshape(-1)[rows_K], reference_K)
            return weight.reshape(-1)[rows_K] * losses_K

        one_sweep = None if own.sequence_level or not self._fuse_loss else token_loss
        loss, logprob, entropy = self._score_microbatch(model, rows, "nograd", one_sweep, prompts)
        if loss is None:
            old_NT = logprob.detach() if old is None else old
            loss = (weight * own.token_losses(logprob, old_NT, credit, reference, rows.loss_mask)).sum()
        logprob = logprob.detach()
        found = own.diagnostics(logprob, logprob if old is None else old, credit, rows.loss_mask, reference)
        scored = rows.loss_mask.sum().float()
        assert entropy is not None
        return loss, found | {"entropy": (entropy.detach() * rows.loss_mask).sum(), "scored_tokens": scored}

    def _log_means(self, sums: dict[str, Tensor]) -> None:
        """Log means over the tokens of all ranks; entropy's over those that were scored."""
        names = sorted(sums)
        totals = self.accelerator.reduce(torch.stack([torch.as_tensor(sums[name]) for name in names]), reduction="sum")
        found = dict(zip(names, totals.tolist(), strict=True))
        tokens, scored = found.pop("tokens"), found.pop("scored_tokens")
        for name, value in found.items():
            self._metrics["train"][name].append(value / max(scored if name == "entropy" else tokens, 1.0))
