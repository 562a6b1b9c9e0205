"""A setting that changed between saving and resuming takes effect, is refused, or does not matter; never silently lost.

docs/checkpoints.md has the same table, and a test holds them together.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from concise_rl.errors import UserError

REFUSED: dict[str, str] = {
    "seed": "the prompts of this epoch would be drawn again",
    "trainer.seed": "the prompts of this epoch would be drawn again",
    "trainer.data_seed": "the prompts of this epoch would be drawn again",
    "trainer.shuffle_dataset": "the prompts of this epoch would be drawn again",
    "trainer.steps_per_generation": "rollouts would be used twice or never",
    "trainer.generation_batch_size": "rollouts would be used twice or never",
    "trainer.ignore_data_skip": "the prompts of this epoch would be drawn again",
    "trainer.max_staleness": "rows that were sampled ahead would be lost",
    "trainer.async_server": "rows that were sampled ahead would be lost",
    "trainer.optim*": "the optimizer's moments are another's",
    "method.*": "the state is another method's",
    "distill.*": "the loss is another",
    "model.path": "the reference and the first evaluation are of the model that the run began with",
    "model.revision": "the reference and the first evaluation are of the model that the run began with",
    "model.merge_adapter": "the reference and the first evaluation are of the model that the run began with",
    "model.dtype": "the weights would be another type's",
    "peft.*": "the adapter has another shape",
}
"""Settings that make another experiment, by pattern, and why."""

REFUSED_IN_SHARDS = ("trainer.weight_decay", "trainer.adam_*")
"""DeepSpeed takes these from its shards of the optimizer, so that a new value would have no effect."""

QUIET = (
    "name", "overwrite", "resume", "run.*", "tracking.*", "model.name", "model.threads", "model.trust_remote_code",
    "verify_deadline_seconds", "trainer.use_cpu", "trainer.per_device_*", "trainer.gradient_accumulation_steps",
    "trainer.max_tokens_per_microbatch", "trainer.dataloader_*", "trainer.ddp_*", "trainer.logging_*",
    "trainer.report_to", "trainer.disable_tqdm", "trainer.push_to_hub", "trainer.hub_*", "evaluation.*",
    "tuning.save_*", "tuning.per_device_*", "tuning.gradient_accumulation_steps", "tuning.dataloader_*",
    "tuning.logging_*",
)  # fmt: skip
"""Settings that change no result, or that another check looks after (the rows of a step, the stored evaluation)."""


def flat(settings: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted names to JSON values."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = json.loads(json.dumps(value, default=str))
    return found


def experiment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that results depend on, as `flat` gives them: checkpoints keep them, `check_settings` compares."""
    return {name: value for name, value in flat(settings).items() if not changes_no_result(name)}


def changes_no_result(name: str) -> bool:
    """Whether a setting is one of those that results do not hang on."""
    return _matches(name, QUIET)


def check_settings(
    folder: str, saved: Mapping[str, Any], now: Mapping[str, Any], *, in_shards: bool = False
) -> list[str]:
    """What changed since a checkpoint was saved and takes effect from here on, one sentence each.

    Args:
        folder: the checkpoint, for people.
        saved, now: settings as `experiment` gives them; a checkpoint that holds none passes.
        in_shards: the optimizer lies in DeepSpeed's shards.

    Raises:
        UserError: a setting changed that would make the run another experiment, or have no effect.
    """
    told = []
    for name in sorted({*saved, *now}) if saved else ():
        before, after = (json.dumps(settings.get(name)) for settings in (saved, now))
        if before == after:
            continue
        reason = next((why for pattern, why in REFUSED.items() if _matches(name, [pattern])), None)
        if reason is None and in_shards and _matches(name, REFUSED_IN_SHARDS):
            reason = "DeepSpeed's shards of the optimizer hold the old value"
        if reason is not None:
            raise UserError(
                f"{name}={after}, {folder} was trained with {before}: {reason}; keep it, or start anew with "
                f"model.path={folder} in another run.dir"
            )
        told.append(f"{name}={after} takes effect, it was {before}")
    return told


def _matches(name: str, patterns: Any) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
