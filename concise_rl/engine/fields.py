"""The fields of `trl.GRPOConfig` here: `ConciseConfig`, what it refuses, and what becomes of each field.

A field that would be taken without an effect is refused, or listed in `WITHOUT_EFFECT` with the reason. A test walks
all of `GRPOConfig`, so that a field that TRL adds must find its place; `docs/trl_fields.md` shows these tables.
"""

from __future__ import annotations

import dataclasses
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
        super().__post_init__()
        if self.steps_per_generation % self.gradient_accumulation_steps:
            raise UserError(
                f"trainer.steps_per_generation={self.steps_per_generation} is no multiple of "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}: an optimizer step would span "
                "generations, and its denominators would be those of one; leave it out, or give a multiple"
            )


@dataclass
class ConciseConfig(LeanConfig):
    """`LeanConfig` for a trainer whose rewards and credit are those of shapers and an advantage."""

    refused: ClassVar[dict[str, str]] = LeanConfig.refused | {
        "mask_truncated_completions": (
            "it hides rows from the loss alone; set truncated=mask, which leaves them out of baseline and history too"
        ),
        "scale_rewards": "the advantage decides what credit is divided by; set advantage.group_relative.scale",
        "multi_objective_aggregation": "there is one reward, so it has no effect; leave it out",
        "reward_weights": "there is one reward, so it has no effect; leave it out",
        "resume_from_checkpoint": "it has no effect; say resume=auto, or resume=FOLDER",
        "load_best_model_at_end": "checkpoints are kept by age, so the best may be gone; name one with model.path",
    }


def is_set(config: Any, name: str) -> bool:
    """Whether a field has another value than its default."""
    known = next(f for f in dataclasses.fields(config) if f.name == name)
    default = known.default_factory() if known.default_factory is not dataclasses.MISSING else known.default
    return getattr(config, name) != default
