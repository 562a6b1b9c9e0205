"""An update and its sampling on a GPU, ours against stock TRL's: a random model of the shape of Qwen2.5-0.5B, bfloat16.

    python benchmarks/step_cuda.py                       # a minute
    python benchmarks/step_cuda.py --profile FOLDER      # where the time of either part goes, too
    python benchmarks/step_cuda.py --device cpu --layers 2 --rows 8 --longest 32 --new-tokens 8    # the script itself

Both sides run on the same trainer, model and rollouts: 64 rows of 128 to 1,024 tokens, groups of eight, credits of both
signs. Loss and gradient are compared first. Seconds are of the wall, synchronised, medians over the repeats, the sides
taking turns; the optimizer's step is not in them. `peak` is memory beyond weights and gradients.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.step_sides import Inputs, gradient, lean_step, sampling_sides, stock_step, trainer_of
from concise_rl.commands.config import compose
from concise_rl.engine.trainer import ConciseTrainer

GROUP = 8


def trainer_on(device: str, layers: int, rows: int, longest: int, folder: str) -> ConciseTrainer:
    """A trainer on a random model that never ends a row."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        use_sliding_window=False,
    )
    with torch.device(device):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    sizes = [f"trainer.per_device_train_batch_size={rows}", f"trainer.num_generations={GROUP}"]
    limit = [f"trainer.max_completion_length={longest}", "trainer.save_strategy=no", "method=grpo"]
    where = [f"trainer.use_cpu={str(device == 'cpu').lower()}", "trainer.max_tokens_per_microbatch=16384"]
    trainer = trainer_of(compose([*sizes, *limit, *where]), folder, model)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    trainer.eos_token_ids, trainer.generation_config.eos_token_id = [], None
    return trainer


def rollouts(rows: int, longest: int, device: str, prompt_tokens: int = 128) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(longest // 8, longest, rows).long()[torch.randperm(rows, generator=generator)]
    mask = (torch.arange(longest) < lengths[:, None]).long()
    prompts = torch.randint(100, 150_000, (rows // GROUP, prompt_tokens), generator=generator)
    made = {
        "prompt_ids": prompts.repeat_interleave(GROUP, dim=0),
        "prompt_mask": torch.ones(rows, prompt_tokens, dtype=torch.long),
        "completion_ids": torch.randint(100, 150_000, (rows, longest), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": torch.randn(rows, generator=generator),
        "num_items_in_batch": mask.sum(),
    }
    return {name: value.to(device) for name, value in made.items()}


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def alternate(sides: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Median wall seconds and largest peak of memory of each side."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides) if repeat % 2 == 0 else reversed(list(sides)):
            peak_mb = 0.0
            if device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            before, started = torch.cuda.memory_allocated() if device == "cuda" else 0, time.perf_counter()
            sides[name]()
            synchronise(device)
            seconds = time.perf_counter() - started
            if device == "cuda":
                peak_mb = (torch.cuda.max_memory_allocated() - before) / 2**20
            found[name].append((seconds, peak_mb))
    return {
        name: {"seconds": statistics.median(s for s, _ in own), "peak_mb": max(p for _, p in own)}
        for name, own in found.items()
    }


def print_sides(title: str, found: dict[str, dict[str, float]]) -> None:
    stock = min(row["seconds"] for name, row in found.items() if name.startswith("stock"))
    print(f"\n| {title} | s | faster than stock | peak MB |\n|---|---:|---:|---:|")
    for name, row in found.items():
        print(f"| {name} | {row['seconds']:.3f} | {stock / row['seconds']:.2f} | {row['peak_mb']:.0f} |")
    sys.stdout.flush()


def update(trainer: ConciseTrainer, inputs: Inputs, repeats: int, device: str) -> None:
    rows = len(inputs["completion_ids"])
    micro = [size for size in (rows // 4, rows // 8) if size]
    stock_step(trainer, inputs, micro[-1])
    expected = gradient(trainer).float()
    lean_step(trainer, inputs)
    own = gradient(trainer).float()
    apart = float((own - expected).norm() / expected.norm())
    print(f"\nnorm of the gradients' difference, relative: {apart:.1e} (both in bfloat16)")

    def cleared(run: Callable[[], object]) -> Callable[[], object]:
        def whole() -> None:
            run()
            for parameter in trainer.model.parameters():  # gradients stay allocated: no side pays for them
                parameter.grad.zero_()

        return whole

    sides: dict[str, Callable[[], object]] = {
        f"stock, micro-batches of {size} rows": cleared(lambda size=size: stock_step(trainer, inputs, size))
        for size in micro
    }
    sides["ours, prompts not shared"] = cleared(lambda: lean_step(trainer, inputs, share=False))
    sides["ours"] = cleared(lambda: lean_step(trainer, inputs))
    lean_step(trainer, inputs)
    alternate(sides, 1, device)  # warm
    words = int(inputs["completion_mask"].sum())
    print_sides(f"update: {rows} rows, {words} tokens of completions", alternate(sides, repeats, device))


def profile(run: Callable[[], object], path: Path) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profiler(activities=activities) as recorded:
        run()
        torch.cuda.synchronize()
    averages = recorded.key_averages()
    path.write_text(
        averages.table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=70)
        + averages.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=70)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--longest", type=int, default=1024)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", type=Path, help="folder for two tables of the profiler")
    options = parser.parse_args()
    print(torch.cuda.get_device_name() if options.device == "cuda" else "CPU", "torch", torch.__version__)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_on(options.device, options.layers, options.rows, options.longest, folder)
        inputs = rollouts(options.rows, options.longest, options.device)
        update(trainer, inputs, options.repeats, options.device)
        trainer.model.zero_grad(set_to_none=True)
        trainer.max_completion_length = trainer.generation_config.max_new_tokens = options.new_tokens
        sides = sampling_sides(trainer, inputs["prompt_ids"].tolist())
        found = alternate(sides, max(2, options.repeats - 1), options.device)
        print_sides(f"generation: {options.rows} rows, {options.new_tokens} tokens", found)
        if options.profile:
            options.profile.mkdir(parents=True, exist_ok=True)
            profile(lambda: lean_step(trainer, inputs), options.profile / "update.txt")
            trainer.model.zero_grad(set_to_none=True)
            trainer.max_completion_length = trainer.generation_config.max_new_tokens = 16
            profile(sides["ours"], options.profile / "generation.txt")


if __name__ == "__main__":
    main()
