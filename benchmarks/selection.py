"""How long a store of a million completions takes to look through, to open and to select from, and how much memory.

python benchmarks/selection.py                       # 1,000,000 completions of 125,000 problems, in a temporary folder
python benchmarks/selection.py --problems 1000       # smaller
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAMPLES = 8
WORDS = ("so", "then", "we", "add", "carry", "first", "wait", "check", "again", "hence", "total", "is", "sum")


def write_store(path: Path, problems: int) -> int:
    """A store as `concise-rl sample` writes it, with texts of 100 to 1,900 characters; its size in bytes."""
    from concise_rl.data.base import content_key
    from concise_rl.evaluation.row import EvaluationRow
    from concise_rl.evaluation.store import SETTINGS
    from concise_rl.verifiers import Verdict, verdict_version

    rng = random.Random(0)
    text = " ".join(rng.choices(WORDS, k=400))
    settings = {"tokenizer": "benchmark", "own_bos": "", "verdicts": verdict_version()}
    with path.open("w") as file:
        file.write(json.dumps({SETTINGS: settings}) + "\n")
        for number in range(problems):
            question = f"What is {number} plus {number % 97}, and what is it times {number % 13}?"
            for sample in range(SAMPLES):
                length = rng.randint(25, 475)
                row = EvaluationRow(
                    prompt_id=content_key(question),
                    sample=sample,
                    prompt=f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
                    reference=str(number),
                    completion=text[: 4 * length],
                    length=length,
                    think_length=length,
                    truncated=length > 470,
                    verdict=Verdict.of(rng.random() < 0.7),
                    columns={"difficulty": number % 5},
                    seed=int(content_key(question, str(sample)), 16) >> 1,
                    messages=({"role": "user", "content": question},),
                )
                file.write(json.dumps(row.to_json()) + "\n")
    return path.stat().st_size


def look_through(path: Path) -> None:
    """Read each line once, find what is torn, damaged or there twice, and write the Parquet file."""
    from concise_rl.evaluation.columns import columns_of

    columns_of(path)


def select(path: Path, selector: str) -> None:
    """As `concise-rl select` does."""
    from concise_rl.methods import load_selector
    from concise_rl.offline.select import select
    from concise_rl.offline.stores import open_stores

    chosen = load_selector(selector)
    select(open_stores([path], needs=chosen.needs), chosen, path.with_name("selected.jsonl"), name=selector)


def measured(name: str, work: Callable[..., None], *arguments: Any) -> None:
    """In a process of its own: seconds of clock and CPU without the imports, and the most memory that it held."""

    def child() -> None:
        import concise_rl.methods.recipes
        import concise_rl.offline.select  # noqa: F401

        started, busy = time.perf_counter(), time.process_time()
        work(*arguments)
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:32s} {seconds:7.1f} s   {busy:7.1f} s of CPU   {most:5.2f} GB", flush=True)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{name} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=125_000, help=f"with {SAMPLES} completions each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.jsonl"
        size = write_store(path, options.problems)
        print(f"{SAMPLES * options.problems} completions, {size / 2**30:.2f} GB", flush=True)
        measured("look through the store, once", look_through, path)
        measured("open it again", look_through, path)
        for selector in ("long2short", "long2short_dpo", "dart_prop2diff", "o1_pruner", "on_policy_sft"):
            measured(f"select {selector}", select, path, selector)
            path.with_name("selected.jsonl").unlink()


if __name__ == "__main__":
    main()
