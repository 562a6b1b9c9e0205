"""The fields of `trl.GRPOConfig` here: `ConciseConfig`, what it refuses, and what becomes of each field.

A field that would be taken without an effect is refused, or listed in `WITHOUT_EFFECT` with the reason. A test walks
all of `GRPOConfig`, so that a field that TRL adds must find its place; `docs/trl_fields.md` shows these tables.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl import GRPOConfig

from concise_rl.errors import UserError


@dataclass
class LeanConfig(GRPOConfig):
    """`trl.GRPOConfig`, and what it has no field for.

    Attributes:
        max_tokens_per_microbatch: tokens, padding included, that are scored in one forward and backward. The rows of a
            device's batch are cut into micro-batches of like length under it; it decides memory, never the result.

    Raises:
        UserError: a field that has no effect here is set, or fields contradict one another.
    """

    max_tokens_per_microbatch: int = field(
        default=16384, metadata={"help": "Tokens, padding included, in one forward and backward pass."}
    )

    refused: ClassVar[dict[str, str]] = {
        "label_smoothing_factor": "no label is predicted, so it has no effect; leave it out",
        "train_sampling_strategy": "TRL's sampler alone orders the prompts, so it has no effect; leave it out",
    }

    def __post_init__(self) -> None:
        self.check()  # what TRL would refuse for another reason
        super().__post_init__()
        self.check()  # what TRL derived

    def check(self) -> None:
        """Refuse fields that have no effect here, or contradict one another.

        Raises:
            UserError: the first such field, with the remedy.
        """
        if self.max_tokens_per_microbatch < 1:
            raise UserError(f"trainer.max_tokens_per_microbatch={self.max_tokens_per_microbatch}: must be positive")
        for name, remedy in self.refused.items():
            if is_set(self, name):
                value = getattr(self, name)
                raise UserError(f"trainer.{name}={str(value).lower() if value is True else value}: {remedy}")
        if self.loss_type == "cispo" and self.epsilon_high is None:
            raise UserError(
                f"trainer.loss_type=cispo cuts ratios at epsilon_high alone, and without it at epsilon={self.epsilon}: "
                "set trainer.epsilon_high, 5 is usual"
            )
        if self.max_steps > 0 and is_set(self, "num_train_epochs"):
            raise UserError(
                f"trainer.num_train_epochs={self.num_train_epochs} has no effect beside max_steps={self.max_steps}: "
                "leave it out, or set trainer.max_steps=-1"
            )
        if self.steps_per_generation and self.steps_per_generation % self.gradient_accumulation_steps:
            raise UserError(
                f"trainer.steps_per_generation={self.steps_per_generation} is no multiple of "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}: an optimizer step would span "
                "generations, and its denominators would be those of one; leave it out, or give a multiple"
            )


@dataclass
class ConciseConfig(LeanConfig):
    """`LeanConfig` for a trainer whose rewards and credit are those of shapers and an advantage.

    Attributes:
        max_staleness: optimizer steps that the weights which sample a row may be behind those that learn from it; a
            process of its own samples ahead by so many. None samples in the trainer's process, step by step.
        async_server: a vLLM server samples ahead, and TRL's asynchronous trainer learns: `ServerTrainer`.
    """

    max_staleness: int | None = field(
        default=None, metadata={"help": "Optimizer steps that a process of its own samples ahead."}
    )
    async_server: bool = field(
        default=False, metadata={"help": "A vLLM server samples ahead, and TRL's asynchronous trainer learns."}
    )

    refused: ClassVar[dict[str, str]] = LeanConfig.refused | {
        "mask_truncated_completions": (
            "it hides rows from the loss alone: set truncated=mask, which leaves them out of baseline and history too"
        ),
        "scale_rewards": "the advantage decides what credit is divided by; set advantage.group_relative.scale",
        "multi_objective_aggregation": "there is one reward, so it has no effect; leave it out",
        "reward_weights": "there is one reward, so it has no effect; leave it out",
        "resume_from_checkpoint": "it has no effect; say resume=auto, or resume=FOLDER",
        "load_best_model_at_end": "checkpoints are kept by age, so the best may be gone; name one with model.path",
    }

    @classmethod
    def of(cls, args: GRPOConfig | None, recipe: Mapping[str, Any]) -> ConciseConfig:
        """A plain `GRPOConfig` as one of these, with what a recipe says of loss and sampling.

        A field of the recipe holds where `args` has TRL's default; where `args` says another thing, that stands, and
        a warning says so.

        Raises:
            UserError: as when it is made by itself.
        """
        args = cls("concise-rl-run") if args is None else args
        config = cls.__new__(type(args) if isinstance(args, cls) else cls)
        own = {name: getattr(cls, name) for name in ("max_tokens_per_microbatch", "max_staleness", "async_server")}
        config.__dict__.update(own | vars(args))
        decided = {name for kind in ("the loss", "sampling") for name in EFFECTIVE[kind].split()}
        for name in sorted(decided & recipe.keys()):
            if not is_set(config, name):
                setattr(config, name, recipe[name])
            elif getattr(config, name) != recipe[name]:
                warnings.warn(f"{name}={getattr(config, name)} stands; the recipe says {recipe[name]}", stacklevel=3)
        config.check()
        if config.generation_batch_size % config.num_generations:
            raise UserError(
                f"num_generations={config.num_generations}: {config.generation_batch_size} completions a generation "
                "make no whole groups; set per_device_train_batch_size or num_generations"
            )
        return config


def is_set(config: Any, name: str) -> bool:
    """Whether a field has another value than its default."""
    known = next(f for f in dataclasses.fields(config) if f.name == name)
    default = known.default_factory() if known.default_factory is not dataclasses.MISSING else known.default
    return getattr(config, name) != default


# --- what becomes of each field ---------------------------------------------------------------------------------------

EFFECTIVE: dict[str, str] = {
    "sampling": (
        "num_generations num_generations_eval max_completion_length temperature top_p top_k min_p repetition_penalty "
        "generation_kwargs cache_implementation chat_template_kwargs ds3_gather_for_generation "
        "use_transformers_continuous_batching transformers_continuous_batching_config use_transformers_paged "
        "max_staleness async_server"
    ),
    "sampling with vLLM": (
        "use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_server_base_url "
        "vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization "
        "vllm_max_model_length vllm_tensor_parallel_size"
    ),
    "sampling with vLLM, or ahead": (
        "vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_importance_sampling_clip_max "
        "vllm_importance_sampling_clip_min vllm_importance_sampling_cap"
    ),
    "what a step holds": (
        "per_device_train_batch_size gradient_accumulation_steps steps_per_generation generation_batch_size "
        "num_iterations max_steps num_train_epochs shuffle_dataset seed ignore_data_skip max_tokens_per_microbatch"
    ),
    "the loss": (
        "loss_type epsilon epsilon_high delta beta use_bias_correction_kl importance_sampling_level "
        "sapo_temperature_pos sapo_temperature_neg vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg "
        "top_entropy_quantile entropy_coef use_adaptive_entropy entropy_coef_min entropy_coef_max entropy_coef_delta "
        "entropy_target off_policy_mask_threshold router_aux_loss_coef"
    ),
    "the reference model": (
        "sync_ref_model ref_model_mixup_alpha ref_model_sync_steps model_init_kwargs trust_remote_code"
    ),
    "the model": (
        "disable_dropout cast_lm_head_to_fp32 bf16 fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing "
        "activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile "
        "torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config neftune_noise_alpha"
    ),
    "the optimizer": (
        "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 "
        "adam_beta2 adam_epsilon optim_target_modules max_grad_norm torch_empty_cache_steps metric_for_best_model "
        "greater_is_better"
    ),
    "logs": (
        "logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level "
        "log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id "
        "trackio_static_space_id log_completions log_unique_prompts num_completions_to_print log_completions_hub_repo "
        "skip_memory_metrics debug"
    ),
    "evaluation by the trainer": (
        "do_eval eval_strategy eval_steps eval_delay eval_on_start per_device_eval_batch_size"
    ),
    "checkpoints": (
        "output_dir save_strategy save_steps save_on_each_node save_total_limit save_only_model enable_jit_checkpoint "
        "restore_callback_states_from_checkpoint push_to_hub hub_token hub_private_repo hub_model_id hub_strategy "
        "hub_always_push hub_revision"
    ),
    "processes and data loading": (
        "use_cpu full_determinism accelerator_config parallelism_config dataloader_num_workers dataloader_pin_memory "
        "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context "
        "dataloader_in_order remove_unused_columns ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers "
        "ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed local_rank"
    ),
}
"""What reads a field, and the fields that it reads."""

WITHOUT_EFFECT: dict[str, str] = {
    "pad_to_multiple_of": "rows are trimmed to the longest of their micro-batch",
    "average_tokens_across_devices": "denominators are always those of all devices",
    "auto_find_batch_size": "TRL refuses true; `max_tokens_per_microbatch` bounds memory",
    "use_cache": "sampling always keeps a cache, scoring never does",
    "data_seed": "TRL's sampler orders prompts by `seed`",
    "dataloader_drop_last": "TRL's sampler yields whole generations alone",
    "length_column_name": "only `train_sampling_strategy` would read it, which is refused",
    "include_num_input_tokens_seen": "a step's inputs are data set rows: `sampled_tokens` in the logs counts tokens",
    "log_multimodal": "images are refused",
    "max_tool_calling_iterations": "there are no tools",
    "label_names": "no label is predicted",
    "prediction_loss_only": "evaluation gives the loss and the logged metrics, never predictions",
    "eval_do_concat_batches": "evaluation keeps no predictions",
    "eval_use_gather_object": "evaluation keeps no predictions",
    "eval_accumulation_steps": "evaluation keeps no predictions",
    "include_for_metrics": "evaluation keeps no predictions",
    "batch_eval_metrics": "evaluation keeps no predictions",
    "do_train": "a flag for scripts; nothing here reads it",
    "do_predict": "a flag for scripts; nothing here reads it",
}
"""Fields that change nothing whatever their value, and why they may stand."""
