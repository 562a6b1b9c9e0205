"""How update and generation grow with the length of completions: a random model of about one million parameters."""

from __future__ import annotations

import sys

import torch

from benchmarks.step_floor import generation_passes, prepared, products_of, update_passes
from benchmarks.step_sides import (
    Inputs,
    alternate,
    gradient,
    lean_step,
    optimizer_step,
    sampling_sides,
    stock_step,
    trainer_of,
)
from concise_rl.commands.config import compose
from concise_rl.engine.trainer import ConciseTrainer

ROWS, PROMPT_TOKENS = 4, 24


def long_trainer(folder: str, longest: int) -> ConciseTrainer:
    """A trainer on a random Qwen2 that never ends a row, so that every completion has the length that is asked for."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=101,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2 * longest,
        tie_word_embeddings=True,
        use_sliding_window=False,
    )
    sizes = [f"trainer.per_device_train_batch_size={ROWS}", f"trainer.num_generations={ROWS}"]
    limit = [f"trainer.max_completion_length={longest}", "trainer.save_strategy=no"]
    trainer = trainer_of(compose(["method=grpo", *sizes, *limit]), folder, Qwen2ForCausalLM(config))
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    trainer.eos_token_ids, trainer.generation_config.eos_token_id = [], None
    return trainer


def long_inputs(length: int) -> Inputs:
    """One group of rows from half of the length to all of it, with credits of both signs."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(length) < torch.linspace(length // 2, length, ROWS).long()[:, None]).long()
    return {
        "prompt_ids": torch.randint(3, 101, (1, PROMPT_TOKENS), generator=generator).expand(ROWS, -1),
        "prompt_mask": torch.ones(ROWS, PROMPT_TOKENS, dtype=torch.long),
        "completion_ids": torch.randint(3, 101, (ROWS, length), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": torch.randn(ROWS, generator=generator),
        "num_items_in_batch": mask.sum(),
    }


def long_times(trainer: ConciseTrainer, length: int, repeats: int) -> dict[str, dict[str, float]]:
    """Processor seconds of stock, ours and floor, for an update and for sampling as many rows of this length."""
    inputs = long_inputs(length)
    trainer.max_completion_length = trainer.generation_config.max_new_tokens = length
    lean_step(trainer, inputs)  # makes the weights of the loss, which the floor's passes read
    ours = gradient(trainer)
    stock_step(trainer, inputs, ROWS)
    assert torch.allclose(ours, gradient(trainer), rtol=0, atol=1e-4 * float(ours.abs().max()))

    def stock(size: int) -> None:
        stock_step(trainer, inputs, size)
        optimizer_step(trainer)

    def lean() -> None:
        lean_step(trainer, inputs)
        optimizer_step(trainer)

    passes = update_passes(trainer, trainer._loss_rows(inputs))
    floor = prepared(products_of(trainer.model, passes, backward=True), trainer.model.dtype)
    sides = {"whole": lambda: stock(ROWS), "rows": lambda: stock(1), "ours": lean, "floor": floor}
    update = alternate(sides, repeats, warm=False)
    update["stock"] = min(update.pop("whole"), update.pop("rows"))

    prompts = inputs["prompt_ids"].tolist()
    passes = generation_passes(prompts, [length] * ROWS)
    floor = prepared(products_of(trainer.model, passes, backward=False), trainer.model.dtype)
    sampling = alternate(sampling_sides(trainer, prompts) | {"floor": floor}, repeats, warm=False)
    return {"update": update, "generation": sampling}


def long_table(lengths: list[int], repeats: int, folder: str) -> None:
    """A line for each part and length."""
    trainer = long_trainer(folder, max(lengths))
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    print(f"\n**{parameters:.2f} M parameters, {ROWS} rows** (update: of half the length to all of it)\n")
    print("| part | tokens | stock s | ours s | floor s | faster than stock | x floor |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    long_times(trainer, 64, 1)  # imports, thread pools, allocators
    for length in lengths:
        for part, s in long_times(trainer, length, repeats).items():
            seconds = " | ".join(f"{s[side]:.2f}" for side in ("stock", "ours", "floor"))
            print(f"| {part} | {length} | {seconds} | {s['stock'] / s['ours']:.2f} | {s['ours'] / s['floor']:.2f} |")
            sys.stdout.flush()
