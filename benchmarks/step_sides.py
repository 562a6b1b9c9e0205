"""What is compared in a step: stock TRL's scoring, loss and backward pass, ours, and how both are timed."""

from __future__ import annotations

import contextlib
import statistics
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from trl import GRPOTrainer

from concise_rl.commands.config import trainer_fields
from concise_rl.commands.train import build_trainer
from concise_rl.engine.trainer import ConciseConfig, ConciseTrainer
from concise_rl.model.loading import load_model, load_tokenizer
from concise_rl.testbeds import ChainSum

Inputs = dict[str, Any]


def trainer_of(composed: Any, folder: str, model: Any = None) -> ConciseTrainer:
    """The trainer of a configuration, or of another model in it, on the embedded task."""
    args = ConciseConfig(output_dir=folder, **trainer_fields(composed))
    tokenizer = load_tokenizer(composed.model)
    return build_trainer(composed, args, model or load_model(composed.model), tokenizer, ChainSum().load("train"))


def stock_step(trainer: ConciseTrainer, inputs: Inputs, micro_rows: int) -> float:
    """TRL's scoring and loss by micro-batches of rows, and the backward pass."""
    rows = len(inputs["completion_ids"])
    trainer.current_gradient_accumulation_steps = rows // micro_rows
    total = 0.0
    for start in range(0, rows, micro_rows):
        part = {
            name: value[start : start + micro_rows] if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in inputs.items()
            if name != "weight"
        }
        with stock_scoring(trainer):
            loss = GRPOTrainer._compute_loss(trainer, trainer.model, part)
        loss.backward()
        total += float(loss.detach())
    trainer.current_gradient_accumulation_steps = 1
    return total


@contextlib.contextmanager
def stock_scoring(trainer: ConciseTrainer) -> Any:
    plain = GRPOTrainer._get_per_token_logps_and_entropies
    trainer._get_per_token_logps_and_entropies = types.MethodType(plain, trainer)  # type: ignore[method-assign]
    yield
    del trainer._get_per_token_logps_and_entropies


def lean_step(
    trainer: ConciseTrainer,
    inputs: Inputs,
    *,
    drop: bool = True,
    fuse: bool = True,
    share: bool = True,
    tokens: int = 0,
) -> float:
    trainer._drop_idle_rows, trainer._fuse_loss, trainer._share_prompts = drop, fuse, share
    budget = trainer.args.max_tokens_per_microbatch
    trainer.args.max_tokens_per_microbatch = tokens or budget
    trainer._weigh([inputs], 1)
    loss = float(trainer._forward_backward(trainer.model, trainer._loss_rows(inputs)))
    trainer.args.max_tokens_per_microbatch = budget
    return loss


def gradient(trainer: ConciseTrainer) -> torch.Tensor:
    found = torch.cat([p.grad.reshape(-1) for p in trainer.model.parameters() if p.grad is not None])
    trainer.model.zero_grad(set_to_none=True)
    return found


def optimizer_step(trainer: ConciseTrainer) -> None:
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    # Timed, and without effect: the sides take turns on one and the same model.
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=0.0)
    optimizer.step()
    trainer.model.zero_grad(set_to_none=True)


def sampling_sides(trainer: ConciseTrainer, prompts: list[list[int]]) -> dict[str, Callable[[], Any]]:
    """TRL's `generate` and our loop, which samples the same each time."""

    def ours() -> list[list[int]]:
        torch.manual_seed(0)
        return trainer._generate_single_turn(prompts, None, {}, trainer.num_generations)[0]

    def stock() -> object:
        torch.manual_seed(0)
        return GRPOTrainer._generate_single_turn(trainer, prompts, None, {}, trainer.num_generations)

    return {"stock": stock, "ours": ours}


def processor_seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def alternate(sides: dict[str, Callable[[], object]], repeats: int, *, warm: bool = True) -> dict[str, float]:
    """Median processor seconds of each side, the first run of each not counted where it is to be warm."""
    for run in sides.values() if warm else ():
        run()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides) if repeat % 2 == 0 else reversed(list(sides)):
            found[name].append(processor_seconds(sides[name]))
    return {name: statistics.median(times) for name, times in found.items()}


def memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))
