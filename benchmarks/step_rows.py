"""What a step does besides products, on many long rows: verify, collect, shape, store, read.

    python benchmarks/step.py --rows 8192        # of 4,096 tokens each, in groups of 8

The rows are made, not sampled: numbers and operators of a wrong or right sum as text, four characters a token, random
entropies. Seconds are processor seconds of this process, so without those of verifying workers; the peak is resident
memory beyond what was held before.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_sides import memory_mb
from concise_rl.engine.collect import collect, repetition_ngram_of
from concise_rl.methods.recipes import load_method
from concise_rl.reporting.run_log import ROLLOUTS_FILE, RunLog, read_rollouts
from concise_rl.rollouts import LocalRollout, StepRecord, TokenVocabulary
from concise_rl.testbeds import ChainSum
from concise_rl.verifiers import verify_many

GROUP, END, THINK_END = 8, 1, 2
VOCABULARY = TokenVocabulary(frozenset({END}), THINK_END)
METHODS = ("grpo", "hapo", "pear", "decs")
"""Plain; with a history; with entropies of phases; with credit by token."""


def synthetic(count: int, tokens: int) -> list[LocalRollout]:
    """Rows of like length in groups of 8, half of them right."""
    rng, numbers = random.Random(0), np.random.default_rng(0)
    rows = []
    for n in range(count):
        length = tokens - n % 97
        ids = numbers.integers(3, 50_000, length).tolist()
        ids[-8], ids[-1] = THINK_END, END
        thought = "".join(f"{number:03d}+" for number in numbers.integers(0, 1000, length).tolist())
        rows.append(
            LocalRollout(
                prompt_key=f"prompt {n // GROUP}",
                prompt="1+2=",
                token_ids=ids,
                completion=f"<think>{thought}</think>{rng.choice('34')}",
                verdict=None,
                columns={},
                limit=tokens,
                reference="3",
                entropies=numbers.random(length, dtype=np.float32),
            )
        )
    return rows


def judged(rows: list[LocalRollout]) -> list[LocalRollout]:
    verdicts = verify_many(ChainSum().verifier, [(row.completion, row.reference) for row in rows])
    return [replace(row, verdict=verdict) for row, verdict in zip(rows, verdicts, strict=True)]


def measured(run: Callable[[], Any]) -> tuple[Any, str]:
    """What it returns; processor seconds and MB of resident memory at the peak, as two columns of a table."""
    Path("/proc/self/clear_refs").write_text("5")
    before, started = memory_mb("VmRSS"), time.process_time()
    found = run()
    seconds = time.process_time() - started
    return found, f"{seconds:.2f} | {memory_mb('VmHWM') - before:.0f}"


def rows_table(count: int, tokens: int = 4096) -> None:
    """Prints a line for each thing that is done with so many rows of so many tokens."""
    print(f"\n**{count} rows of {tokens} tokens**\n")
    print("| part | processor s | peak MB | file MB |\n|---|---:|---:|---:|")
    made = synthetic(count, tokens)
    rows, cost = measured(lambda: judged(made))
    print(f"| verify | {cost} | |")
    for name in METHODS:
        method_lines(name, rows)


def method_lines(name: str, rows: list[LocalRollout]) -> None:
    method = load_method(name)
    ngram = repetition_ngram_of(method.components.values())
    options: dict[str, Any] = {"group_size": GROUP, "step": 0, "vocabulary": VOCABULARY, "needs": method.needs}
    found, cost = measured(lambda: collect(rows, repetition_ngram=ngram, **options))
    print(f"| {name}, collect | {cost} | |")
    (result, _), cost = measured(lambda: method.apply(found.batch, method.init()))
    print(f"| {name}, shape | {cost} | |")
    taught = found.batch.replace(counts=result.counts)
    record = StepRecord(taught, result.reward, result.credit, found.prompts, found.completions, {}, found.finishes)
    with tempfile.TemporaryDirectory() as folder:
        _, cost = measured(lambda: RunLog(folder).on_rollouts(record))
        print(f"| {name}, store | {cost} | {(Path(folder) / ROLLOUTS_FILE).stat().st_size / 1e6:.0f} |")
        _, cost = measured(lambda: sum(1 for _ in read_rollouts(folder)))
        print(f"| {name}, read | {cost} | |")
