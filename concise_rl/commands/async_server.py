"""`engine=async_server`: what a configuration becomes where TRL's asynchronous trainer runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from concise_rl.commands import config as configuration
from concise_rl.errors import UserError
from concise_rl.methods.method import Method


def served_by(config: DictConfig, args: Any, method: Method, teaching: Any) -> tuple[Any, Method]:
    """Configuration and method of TRL's asynchronous trainer, once the run has a place there.

    Raises:
        UserError: a setting that has none, and what to set instead.
    """
    from concise_rl.engine.server_trainer import config_of, server_config

    check_all_weights(config)
    fields = configuration.trainer_fields(config) | {"push_to_hub": False}
    loading = {"dtype": config.model.dtype, "trust_remote_code": config.model.trust_remote_code}
    if config.model.revision:
        loading["model_init_kwargs"] = {"revision": config.model.revision}
    method = dataclasses.replace(method, loss={"loss_type": args.loss_type})
    return server_config(config_of(fields, args.output_dir, **loading), method, teaching), method


def build_server_trainer(config: DictConfig, args: Any, tokenizer: Any, prompts: Sequence[Any], **options: Any) -> Any:
    """The `ServerTrainer` that a configuration describes; `options` override."""
    from concise_rl.engine.dataset import training_dataset
    from concise_rl.engine.server_trainer import ServerTrainer

    teaching = configuration.teaching_of(config)
    own, method = served_by(config, args, configuration.method_of(config), teaching)
    described = {
        "method": method,
        "verifier": configuration.verifier_of(config),
        "train_dataset": training_dataset(prompts, tokenizer, config.system_prompt),
        "think_end": config.model.think_end,
        "verify_deadline_seconds": config.verify_deadline_seconds,
        "teaching": teaching,
    }
    return ServerTrainer(config.model.path, args=own, processing_class=tokenizer, **described | options)


def check_all_weights(config: DictConfig) -> None:
    """Refuse a model that TRL's asynchronous trainer does not load, or would not hand over as a whole.

    Raises:
        UserError: an adapter, a GGUF file, or an attention of the user's choice.
    """
    from concise_rl.model.adapters import is_adapter
    from concise_rl.model.loading import is_gguf

    model, asked = config.model, "engine=async_server"
    if config.peft is not None or is_adapter(model.path):
        raise UserError(f"{asked} hands all weights over, not an adapter: set peft=none, and merge one that is there")
    if is_gguf(model.path):
        raise UserError(f"model.path={model.path}: {asked} reads no GGUF file; save it as a folder first")
    if model.attn_implementation is not None:
        raise UserError(
            f"model.attn_implementation={model.attn_implementation}: {asked} brings TRL's own attention; leave it out"
        )
