"""Long2short on the embedded reasoner, beside HAPO: accuracy, tokens and cost, three seeds.

    python benchmarks/long2short.py                 # about half an hour of one core
    python benchmarks/long2short.py --table         # trains nothing: the page from the runs that are there

Each seed samples once, selects, tunes, and is evaluated on the test problems; HAPO is the demo's recipe as released.
What is there is not run again. Cost is in tokens: sampled for the rows or the rollouts, and trained on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.cells import ROOT, commit, processor
from benchmarks.leaderboard import with_interval
from concise_rl.evaluation import Evaluation, difference
from concise_rl.reporting.run_log import read_config, read_metrics, read_summary
from concise_rl.reporting.summary import markdown_table

SFT = ["tuning.learning_rate=3e-4", "tuning.num_train_epochs=3"]
TUNED = {
    "random right, SFT": ("random_right", "sft", SFT),
    "all right, SFT": ("on_policy_sft", "sft", SFT),
    "DART, quotas by difficulty, SFT": ("dart_prop2diff", "sft", SFT),
    "shortest right, SFT": ("long2short", "sft", SFT),
    "shortest right, DPO": ("long2short_dpo", "dpo", ["tuning.learning_rate=3e-5"]),
    "O1-Pruner, weighted": ("o1_pruner", "weighted", ["tuning.learning_rate=1e-4", "tuning.num_train_epochs=3"]),
}
"""What is compared: selector, recipe, and what the embedded model needs in place of a language model's settings."""

HEADER = ["", "seeds", "accuracy", "tokens", "tokens by seed", "accuracy, points", "tokens, %", "sampled, thousand",
          "trained, thousand"]  # fmt: skip


def call(*words: str) -> None:
    """One command of `concise-rl`."""
    subprocess.run([sys.executable, "-m", "concise_rl.cli", *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def make(folder: Path, seed: int) -> None:
    """All runs of a seed that are not there yet."""
    store = folder / f"samples-{seed}.jsonl"
    call("sample", f"store={store}", f"evaluation.seed={seed}")
    for name, (selector, recipe, settings) in TUNED.items():
        run = folder / f"{selector}-{seed}"
        if (run / "summary.json").exists():
            continue
        rows = folder / f"{selector}-{seed}.jsonl"
        call("select", f"selector={selector}", f"stores={store}", f"out={rows}", f"seed={seed}")
        call("tune", f"recipe={recipe}", f"rows={rows}", f"run.dir={run}", f"seed={seed}", *settings, "overwrite=true")
        print(f"seed {seed}: {name} done", flush=True)
    run = folder / f"hapo-{seed}"
    if not (run / "summary.json").exists():
        call("train", "method=hapo", f"run.dir={run}", f"seed={seed}", "overwrite=true")


def cost(run: Path) -> tuple[int, int]:
    """Tokens sampled and trained on."""
    summary = read_summary(run)
    if "trained_tokens" in summary:
        return summary["sampled_tokens"], summary["trained_tokens"]
    trainer, lines = read_config(run)["trainer"], read_metrics(run)
    size = trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"]
    tokens = sum(int(line["mean_tokens"] * size) for line in lines)
    return tokens, round(sum(line["mean_tokens"] * size * (1 - line["zero_credit_frac"]) for line in lines))


def row(name: str, runs: list[Path], spent: Callable[[Path], tuple[int, int]] = cost) -> list[str]:
    """One line of the table: the seeds pooled, each problem with all its samples; `spent` is what a run took."""
    before = Evaluation.pooled([Evaluation.load(run / "evaluation-before.jsonl") for run in runs])
    after = Evaluation.pooled([Evaluation.load(run / "evaluation-after.jsonl") for run in runs])
    found, change = after.summary(), difference(before, after)
    each = [read_summary(run)["after"]["mean_tokens"] for run in runs]
    sampled, trained = (sum(column) / len(runs) for column in zip(*map(spent, runs), strict=True))

    return [
        name, str(len(runs)), f"{100 * found['accuracy']:.1f} %", f"{found['mean_tokens']:.1f}",
        f"{min(each):.1f} to {max(each):.1f}",
        with_interval(change, "accuracy_points", "+.1f"), with_interval(change, "tokens_percent", "+.0f"),
        f"{sampled / 1000:.0f}", f"{trained / 1000:.0f}",
    ]  # fmt: skip


def page(folder: Path, seeds: list[int]) -> str:
    """The Markdown of docs/results/long2short.md."""
    rows = []
    for name, stem in [*((name, found[0]) for name, found in TUNED.items()), ("HAPO, as released", "hapo")]:
        runs = [folder / f"{stem}-{seed}" for seed in seeds if (folder / f"{stem}-{seed}" / "summary.json").exists()]
        rows += [row(name, runs)] if runs else []
    return (
        "# Long2short beside reinforcement learning\n\n"
        "The embedded reasoner on `chain_sum`: 8 samples of each of 128 training problems, a selection, a tuning\n"
        "run; HAPO for comparison. 512 test problems, temperature 1. Changes are paired by problem; [...] is the 95 %\n"
        "interval over problems. Sampled tokens: of the store, which all selections of a seed share, or of the\n"
        "rollouts. DART's uniform quota of 40 keeps all right answers of so few samples.\n\n"
        + markdown_table([HEADER, *rows])
        + f"\n`python benchmarks/long2short.py`, {processor()}, two-core virtual machine,\n"
        f"{time.strftime('%Y-%m-%d')}, commit {commit()}.\n"
    )


def asked(description: str | None, name: str) -> argparse.Namespace:
    """The command line of a script that makes the page of a name from its runs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--runs", type=lambda path: Path(path).resolve(), default=ROOT / "runs" / name)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / f"{name}.md")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    options = asked(__doc__, "long2short")
    for seed in [] if options.table else options.seeds:
        make(options.runs, seed)
    options.out.write_text(page(options.runs, options.seeds))


if __name__ == "__main__":
    main()
