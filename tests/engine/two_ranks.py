"""Trains some steps on rollouts that depend on the row alone, not on the rank that samples it; writes what came of it.

Run by ranks.py under one process and under two. `poison=STEP` makes that step's loss infinite.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState

from concise_rl.commands.config import compose, guard_of, trainer_fields
from concise_rl.commands.guarded import watch
from concise_rl.commands.train import build_trainer
from concise_rl.engine import checkpoint
from concise_rl.engine.stopping import StopSignals
from concise_rl.engine.trainer import ConciseConfig, ConciseTrainer
from concise_rl.model.loading import load_model, load_tokenizer
from concise_rl.reporting.run_log import step_to_json
from concise_rl.testbeds import ChainSum
from concise_rl.testbeds.chain_sum import answer, running_sum


class RowSampler(ConciseTrainer):
    """Every completion is a function of its question and its place in the global batch."""

    def _generate_single_turn(self, prompt_ids, *args):
        first = self.accelerator.process_index * len(prompt_ids)
        completions = []
        for b, ids in enumerate(prompt_ids):
            question = self._tokenizer.decode(ids)
            rng = random.Random(f"{question}/{first + b}/{self.state.global_step}")
            thought = ";wait,".join([running_sum(question)] * rng.randint(1, 3))
            said = answer(question) if len(question) % 2 or rng.random() < 0.7 else "0"
            completions.append(
                [*self._tokenizer.encode(f"<think>{thought}</think>{said}"), self._tokenizer.eos_token_id]
            )
        return completions, None

    poison = -1

    def _loss_and_logs(self, *args):
        loss, logs = super()._loss_and_logs(*args)
        return loss * (float("inf") if self.state.global_step == self.poison else 1), logs


class Sink:
    def __init__(self) -> None:
        self.lines: list[dict] = []
        self.metrics: list[dict] = []

    def on_rollouts(self, record):
        self.lines.append(step_to_json(record))

    def on_metrics(self, step, metrics):
        self.metrics.append(metrics)


def skip_compiled_collectives() -> None:
    """DeepSpeed on CPU compiles collectives for a minute, under a lock that a killed process leaves behind."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def shard_on_cpu() -> None:
    """Accelerate shards on accelerators alone: it would take a CPU's processes for plain DDP and leave FSDP out.

    Nor does it tell DeepSpeed of their process group, without which ZeRO-3 would load a reference for one process.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        deepspeed.init_distributed("gloo", verbose=False)


def layout_of(trainer: ConciseTrainer) -> list[str]:
    """What wrapped the model, and the types of what a rank holds of it."""
    weights = trainer.accelerator.unwrap_model(trainer.model_wrapped).parameters()
    kinds = {"ZeRO-3's shard" if hasattr(p, "ds_id") else type(p).__name__ for p in weights}
    return [trainer.accelerator.distributed_type.value, *sorted(kinds)]


def main() -> None:
    out, method, *overrides = sys.argv[1:]
    poison = [override for override in overrides if override.startswith("poison=")]
    overrides = [override for override in overrides if override not in poison]
    RowSampler.poison = int(poison[0].removeprefix("poison=")) if poison else -1
    skip_compiled_collectives()
    torch.set_num_threads(1)
    composed = compose(
        [
            f"method={method}",
            "trainer.num_generations=8",
            "trainer.max_steps=2",
            "trainer.save_steps=2",
            "trainer.max_completion_length=160",
            *overrides,
        ]
    )
    model, tokenizer, sink = load_model(composed.model), load_tokenizer(composed.model), Sink()
    args = ConciseConfig(output_dir=out, **trainer_fields(composed))
    shard_on_cpu()
    prompts = ChainSum().load("train")
    trainer = build_trainer(composed, args, model, tokenizer, prompts, kind=RowSampler, sinks=[sink])
    watch(trainer, guard_of(composed), print, StopSignals())
    trainer.train(None if composed.resume == "never" else composed.resume)
    folder = Path(out) / f"rank{PartialState().process_index}"
    folder.mkdir()
    checkpoint.save_state(folder, trainer.states, {})
    if PartialState().is_main_process:
        (Path(out) / "steps.json").write_text(json.dumps(sink.lines))
        (Path(out) / "metrics.json").write_text(json.dumps(sink.metrics))
        (Path(out) / "layout.json").write_text(json.dumps(layout_of(trainer)))


if __name__ == "__main__":
    main()
