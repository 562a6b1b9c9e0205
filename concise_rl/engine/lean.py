"""`LeanTrainer`: TRL's GRPO trainer whose step computes nothing that does not count.

Sampling and scoring are those of `ForwardTrainer`. Rows without credit are left out of forward and backward, and the
loss has denominators of the whole optimizer step. Loss and gradient are those of `trl.GRPOTrainer`, to rounding, where
a step is one micro-batch on one rank; cut in any other way they stay the same, which TRL's do not.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from concise_rl.engine.fields import ConciseConfig as ConciseConfig
from concise_rl.engine.fields import LeanConfig as LeanConfig
from concise_rl.engine.forward import ForwardTrainer
from concise_rl.kernels.arguments import Entropy
from concise_rl.methods.losses.importance import Importance
from concise_rl.methods.losses.policy_loss import PolicyLoss, StepTotals
from concise_rl.model.scoring import LossRows, microbatches
from concise_rl.model.shared_prompts import PromptStates

_OF_SCORED = frozenset({"entropy", *Importance.LOGGED})
"""Logged means over the tokens of rows with credit, as those of other rows are not computed."""


class LeanTrainer(ForwardTrainer):
    """A `trl.GRPOTrainer` with a leaner step; arguments and results are TRL's."""

    _current_train_step_time: float
    _entropy_window_stats: tuple[float, float] | None
    _importance: Importance | None = None
    """Corrects, in the loss, what older weights sampled; TRL corrects what vLLM sampled before it."""
    entropy_coef: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare_loss()

    def _prepare_loss(self) -> None:
        """The loss that this run computes."""
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
            vespo=(args.vespo_k_pos, args.vespo_lambda_pos, args.vespo_k_neg, args.vespo_lambda_neg),
            off_policy_threshold=self.off_policy_mask_threshold,
            max_completion_length=self.max_completion_length,
        )
        self._drop_idle_rows = self._fuse_loss = True

    # -- loss and gradient --------------------------------------------------------------------------------------------

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward of one accumulation step, in micro-batches under a budget of tokens."""
        started = time.perf_counter()
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        rows = self._loss_rows(self._prepare_inputs(inputs))
        loss = self._forward_backward(model, rows)
        every = self.args.torch_empty_cache_steps
        if every is not None and self.state.global_step % every == 0:
            clear_device_cache()
        self._step += 1
        self._current_train_step_time += time.perf_counter() - started
        if self._step % self.current_gradient_accumulation_steps == 0:
            self._metrics["train"]["step_time"].append(self._current_train_step_time)
            self._current_train_step_time = 0.0
        return loss

    def _prepare_inputs(self, generation_batch):
        inputs = super()._prepare_inputs(generation_batch)
        if self._mode == "train" and "weight" not in inputs:
            self._weigh(self._buffered_inputs, self.args.gradient_accumulation_steps)
        return inputs

    def _compute_loss(self, model, inputs):
        """The loss of an evaluation batch, which is a step of its own; training goes through `training_step`."""
        self._weigh([inputs], 1)
        return self._step_loss(model, self._loss_rows(inputs)) * self.accelerator.num_processes

    def _weigh(self, buffered: list[dict[str, Any]], steps: int) -> None:
        """Give every token of a generation its credit, and its weight in the loss of its optimizer step.

        Args:
            buffered: the accumulation steps of the generation.
            steps: so many of them make an optimizer step.
        """
        masks = [inputs["completion_mask"] * inputs.get("tool_mask", 1) for inputs in buffered]
        kept = self._high_entropy(buffered, masks) if self.top_entropy_quantile < 1 else masks
        pairs = list(zip(masks, kept, strict=True))
        own = torch.tensor([[m.any(dim=1).sum(), m.sum(), k.sum()] for m, k in pairs], dtype=torch.float64)
        counts = self.accelerator.reduce(own.to(self.accelerator.device, torch.float32), reduction="sum").tolist()
        mean_tokens = sum(tokens for _, tokens, _ in counts) * steps / len(counts)
        for place, (inputs, (mask, kept_mask)) in enumerate(zip(buffered, pairs, strict=True)):
            rows, tokens, kept_tokens = map(sum, zip(*counts[place // steps * steps :][:steps], strict=True))
            inputs["weight"] = self.policy_loss.weights(mask, StepTotals(rows, tokens, mean_tokens))
            inputs["credit"] = self._credit(inputs) * kept_mask
            if self._entropy_bonus_enabled:
                inputs["entropy_weight"] = kept_mask.float() / max(kept_tokens, 1.0)

    def _credit(self, inputs: dict[str, Any]) -> Tensor:
        """The credit of rows or tokens, (N, 1) or (N, T), times the importance weights of another sampler."""
        credit = inputs["advantages"]
        credit = credit if credit.ndim == 2 else credit[:, None]
        return credit if self.loss_type == "vespo" else credit * inputs.get("importance_sampling_ratio", 1.0)

    def _high_entropy(self, buffered: list[dict[str, Any]], masks: list[Tensor]) -> list[Tensor]:
        """The tokens of a generation whose entropy is in the quantile that trains; of all ranks together."""
        with torch.no_grad():
            entropies = [
                self._get_per_token_logps_and_entropies(
                    self.model,
                    torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                    torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                    inputs["completion_ids"].shape[1],
                    compute_entropy=True,
                )[1]
                for inputs in buffered
            ]
        kept = self.get_high_entropy_mask(torch.cat(entropies), torch.cat(masks), 1 - self.top_entropy_quantile)
        return list(kept.split([len(mask) for mask in masks]))

    def _loss_rows(self, inputs: dict[str, Any]) -> LossRows:
        mask, old = inputs["completion_mask"], inputs.get("old_per_token_logps")
        if self.loss_type == "vespo" and "importance_sampling_ratio" in inputs:
            old = (
                old - inputs["importance_sampling_ratio"].clamp(min=1e-8).log()
            )  # the sampler's, cut as the ratios are
        return LossRows(
            inputs["prompt_ids"],
            inputs["prompt_mask"],
            inputs["completion_ids"],
            mask,
            mask * inputs.get("tool_mask", 1),
            weight=inputs["weight"],
            credit=inputs["credit"],
            old_logprob=old,
            reference_logprob=inputs.get("ref_per_token_logps"),
            sampler_logprob=inputs.get("sampling_per_token_logps"),
            entropy_weight=inputs.get("entropy_weight"),
        )

    def _forward_backward(self, model: Any, rows: LossRows) -> Tensor:
        """The gradient of all rows; returns their loss, of all ranks together."""
        return self.accelerator.reduce(self._step_loss(model, rows), reduction="sum")

    def _step_loss(self, model: Any, rows: LossRows) -> Tensor:
        """This rank's part of the loss, by micro-batches, with its backward passes where gradients are on."""
        training = torch.is_grad_enabled()
        active_N = self._active_rows(rows)
        prompts = self._prompts_to_share(rows, active_N)
        parts = microbatches(rows, self.args.max_tokens_per_microbatch, active_N, with_prompts=prompts is None)
        # The prompts' backward knows not all parameters, so where ranks sum gradients, it must not be the last.
        passes = self._passes(len(parts) + (prompts is not None and self.accelerator.num_processes > 1))
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
                if training:
                    # DDP, FSDP and DeepSpeed average over ranks; the weights are those of a sum.
                    options = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
                    self.accelerator.backward(loss * self.accelerator.num_processes, **options)
                    if shared and place == len(parts) - 1:
                        shared.backward()
            total += loss.detach()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * mine
        self._log_means(sums)
        return total

    def _active_rows(self, rows: LossRows) -> Tensor | None:
        """The rows that can move the loss: those with credit, with a KL term or an entropy bonus all that count."""
        if not self._drop_idle_rows:
            return None
        counts_NT = rows.weight != 0
        return (counts_NT if self.beta or self._entropy_bonus_enabled else counts_NT & (rows.credit != 0)).any(dim=1)

    def _loss_and_logs(
        self, model: Any, rows: LossRows, prompts: PromptStates | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one micro-batch, and sums over its tokens for the logs."""
        own, mask, weight = self.policy_loss, rows.loss_mask, rows.weight
        credit, bonus = rows.credit.expand(mask.shape), rows.entropy_weight
        old, reference = rows.old_logprob, rows.reference_logprob
        coefficient = 0.0 if bonus is None else self._entropy_coefficient()
        sampler, importance = rows.sampler_logprob, self._importance

        def token_loss(logprob_K: Tensor, entropy_K: Tensor | None, rows_K: Tensor) -> Tensor:
            old_K = logprob_K.detach() if old is None else old.reshape(-1)[rows_K]
            reference_K = None if reference is None else reference.reshape(-1)[rows_K]
            sampler_K = None if sampler is None else sampler.reshape(-1)[rows_K]
            credit_K = self._corrected(credit.reshape(-1)[rows_K], old_K, sampler_K)
            losses_K = own.token_losses(logprob_K, old_K, credit_K, reference_K)
            losses_K = weight.reshape(-1)[rows_K] * losses_K
            return losses_K if bonus is None else losses_K - coefficient * bonus.reshape(-1)[rows_K] * entropy_K

        needs_rows = own.needs_rows or (importance is not None and importance.needs_rows)
        one_sweep = self._fuse_loss and torch.is_grad_enabled() and not needs_rows
        entropy_of: Entropy = "grad" if bonus is not None and torch.is_grad_enabled() else "nograd"
        loss, logprob, entropy = self._score_microbatch(
            model, rows, entropy_of, token_loss if one_sweep else None, prompts
        )
        assert entropy is not None
        if loss is None:
            old_NT = logprob.detach() if old is None else old
            corrected = self._corrected(credit, old_NT, sampler, mask)
            losses = own.token_losses(logprob, old_NT, corrected, reference, mask, sampler)
            loss = (weight * losses).sum()
            if bonus is not None:
                loss = loss - coefficient * (bonus * entropy).sum()
        logprob, entropy = logprob.detach(), entropy.detach()
        found = own.diagnostics(logprob, logprob if old is None else old, credit, mask, reference)
        if importance is not None and sampler is not None:
            found |= importance.diagnostics(logprob, sampler, mask)
        if bonus is not None:
            kept = bonus != 0
            found |= {"bonus_entropy": (entropy * kept).sum(), "bonus_tokens": kept.sum().float()}
            found["policy_loss"] = loss.detach() + coefficient * (bonus * entropy).sum()
        return loss, found | {"entropy": (entropy * mask).sum(), "scored_tokens": mask.sum().float()}

    def _corrected(
        self, credit: Tensor, logprob: Tensor, sampler_logprob: Tensor | None, mask_NT: Tensor | None = None
    ) -> Tensor:
        """The credit of tokens, times the importance weights of what older weights sampled."""
        if self._importance is None or sampler_logprob is None:
            return credit
        return credit * self._importance.weight(logprob, sampler_logprob, mask_NT)

    # -- logs, and what is steered by them ----------------------------------------------------------------------------

    def _log_means(self, sums: dict[str, Tensor]) -> None:
        """Log means over the tokens of all ranks; `_OF_SCORED` over those that were scored, and not where none was."""
        names = sorted(sums)
        totals = self.accelerator.reduce(torch.stack([torch.as_tensor(sums[name]) for name in names]), reduction="sum")
        found = dict(zip(names, totals.tolist(), strict=True))
        tokens, scored = found.pop("tokens"), found.pop("scored_tokens")
        if "bonus_tokens" in found:
            self._steer_entropy(found.pop("bonus_entropy"), found.pop("bonus_tokens"))
            # A part of the step's; what is logged is the mean over the parts.
            parts = self.current_gradient_accumulation_steps if self._mode == "train" else 1
            self._metrics[self._mode]["policy_loss"].append(found.pop("policy_loss") * parts)
        for name, value in found.items():
            if name not in _OF_SCORED or scored:
                self._metrics[self._mode][name].append(value / max(scored if name in _OF_SCORED else tokens, 1.0))

    def _entropy_coefficient(self) -> float:
        """The weight of the entropy bonus in this step: 0 while an adaptive one sees more entropy than it aims at."""
        resting = self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target
        return 0.0 if resting else self.entropy_coef

    def _steer_entropy(self, entropy: float, tokens: float) -> None:
        """Move an adaptive bonus by what the whole step showed, as `trl.GRPOConfig.use_adaptive_entropy` describes."""
        if self._mode != "train":
            return
        seen = self._entropy_window_stats or (0.0, 0.0)
        self._entropy_window_stats = (seen[0] + entropy, seen[1] + tokens)
        if not self.accelerator.sync_gradients:
            return
        if self.use_adaptive_entropy:
            args, mean = self.args, self._entropy_window_stats[0] / max(self._entropy_window_stats[1], 1.0)
            step = args.entropy_coef_delta if mean <= args.entropy_target else -args.entropy_coef_delta
            self.entropy_coef = min(max(self.entropy_coef + step, args.entropy_coef_min), args.entropy_coef_max)
            self._last_world_entropy = mean
        self._entropy_window_stats = None
        self._metrics["train"]["entropy_coef"].append(self.entropy_coef)
