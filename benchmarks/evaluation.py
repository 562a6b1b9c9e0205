"""Evaluating the embedded model: our sampling loop against `generate` on fixed batches in data set order.

    python benchmarks/evaluation.py [--problems 500] [--samples 4] [--repeats 1]

Both sample the same problems at temperature 1 in batches of the same size on one thread. Ours is timed whole, with
judging, storing and the summary; of the other, `model.generate` and padding alone. They take turns, in one process; the
ratio is of processor seconds, so a busy machine slows both sides alike.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from concise_rl.data import Prompt
from concise_rl.evaluation import evaluate
from concise_rl.evaluation.evaluate import render_texts
from concise_rl.model.loading import load_model, load_tokenizer, spread
from concise_rl.model.sampling import left_pad
from concise_rl.testbeds.chain_sum import ChainSum
from concise_rl.verifiers import FinalNumber

BATCH_ROWS = 128
MAX_NEW_TOKENS = 160


def ours(model: Any, tokenizer: Any, prompts: list[Prompt], samples: int) -> float:
    """Evaluate as `concise-rl eval` does; returns the mean length, as a check that both sides do the same work."""
    with tempfile.TemporaryDirectory() as folder:
        made = evaluate(
            model,
            tokenizer,
            prompts,
            FinalNumber(),
            samples=samples,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=1.0,
            seed=0,
            batch_rows=BATCH_ROWS,
            store=Path(folder) / "evaluation.jsonl",
        )
        return made.summary()["mean_tokens"]


@torch.no_grad()
def plain(model: Any, tokenizer: Any, prompts: list[Prompt], samples: int) -> float:
    """Fixed batches in data set order, each as long as its longest completion."""
    texts = render_texts(prompts, tokenizer)
    rows = [tokenizer(text)["input_ids"] for text in texts for _ in range(samples)]
    tokens = 0
    torch.manual_seed(0)
    for start in range(0, len(rows), BATCH_ROWS):
        ids_RL, mask_RL = left_pad(rows[start : start + BATCH_ROWS], tokenizer.pad_token_id, model.device)
        output = model.generate(
            input_ids=ids_RL,
            attention_mask=mask_RL,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
        )[:, ids_RL.shape[1] :]
        ended_RT = (output == tokenizer.eos_token_id).cumsum(dim=1) > 0
        tokens += int((~ended_RT).sum() + ended_RT.any(dim=1).sum())
    return tokens / len(rows)


def timed(call: Callable[[], float]) -> tuple[float, float, float]:
    """Processor seconds, wall seconds, and what the call returned."""
    processor, wall = time.process_time(), time.perf_counter()
    result = call()
    return time.process_time() - processor, time.perf_counter() - wall, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(1)
    spec = SimpleNamespace(
        path="embedded:tiny", revision=None, trust_remote_code=False, dtype="float32", attn_implementation=None
    )
    model, tokenizer = load_model(spec).eval(), load_tokenizer(spec)
    prompts = spread(ChainSum().load("test"), options.problems)
    for side in (ours, plain):
        side(model, tokenizer, prompts[:32], 1)

    found: dict[str, list[tuple[float, float, float]]] = {"ours": [], "plain generate": []}
    for _ in range(options.repeats):
        for name, side in zip(found, (ours, plain), strict=True):
            found[name].append(timed(lambda side=side: side(model, tokenizer, prompts, options.samples)))  # type: ignore[misc]
    ratios = [theirs[0] / own[0] for own, theirs in zip(*found.values(), strict=True)]

    print(f"{len(prompts)} problems, {options.samples} samples each, batches of {BATCH_ROWS}, one thread; ", end="")
    print(f"{platform.machine()}, torch {torch.__version__}; {datetime.date.today()}\n")
    print("| | processor s | wall s | mean tokens |\n|---|---|---|---|")
    for name, runs in found.items():
        processor, wall, tokens = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"| {name} | {processor:.1f} | {wall:.1f} | {tokens:.1f} |")
    print(f"\nplain / ours, processor seconds: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
