"""Long2short on the embedded reasoner, beside HAPO: accuracy, tokens and cost, three seeds.

    python benchmarks/long2short.py                 # about half an hour of one core
    python benchmarks/long2short.py --table         # trains nothing: the page from the runs that are there

Each seed samples once, selects, tunes, and is evaluated on the test problems; HAPO is the demo's recipe as released.
What is there is not run again. Cost is in tokens: sampled for the rows or the rollouts, and trained on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.cells import ROOT, commit, processor, run_command
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
    "shortest right, SimPO": ("long2short_dpo", "simpo", ["tuning.learning_rate=3e-5"]),
    "O1-Pruner, weighted": ("o1_pruner", "weighted", ["tuning.learning_rate=1e-4", "tuning.num_train_epochs=3"]),
}
"""What is compared: selector, recipe, and what the embedded model needs in place of a language model's settings."""

SHARES = ("0.75", "0.5", "0.25")
"""Of the start, in its averages with the model that was tuned on the shortest right answers (Kimi's merging)."""

HEADER = ["", "seeds", "accuracy", "tokens", "tokens by seed", "accuracy, points", "tokens, %", "sampled, thousand",
          "trained, thousand"]  # fmt: skip


def stem(selector: str, recipe: str) -> str:
    """Of a run's folder: the selector, and the recipe where another one tunes on the same pairs."""
    return "-".join([selector, *(["simpo"] if recipe == "simpo" else [])])


def make(folder: Path, seed: int) -> None:
    """All runs of a seed that are not there yet."""
    store = folder / f"samples-{seed}.jsonl"
    run_command("sample", f"store={store}", f"evaluation.seed={seed}")
    for name, (selector, recipe, settings) in TUNED.items():
        run = folder / f"{stem(selector, recipe)}-{seed}"
        if (run / "summary.json").exists():
            continue
        rows = folder / f"{selector}-{seed}.jsonl"
        run_command("select", f"selector={selector}", f"stores={store}", f"out={rows}", f"seed={seed}")
        run_command(
            "tune", f"recipe={recipe}", f"rows={rows}", f"run.dir={run}", f"seed={seed}", *settings, "overwrite=true"
        )
        print(f"seed {seed}: {name} done", flush=True)
    merged = folder / f"merge-{seed}"
    if not (merged / "sweep.json").exists():
        tuned = str(folder / f"long2short-{seed}" / "model")
        run_command(
            "merge", "embedded:tiny", tuned, "--sweep", ",".join(SHARES), "--out", str(merged), "benchmark=chain_sum"
        )
    run = folder / f"hapo-{seed}"
    if not (run / "summary.json").exists():
        run_command("train", "method=hapo", f"run.dir={run}", f"seed={seed}", "overwrite=true")


def cost(run: Path) -> tuple[int, int]:
    """Tokens sampled and trained on."""
    summary = read_summary(run)
    if "trained_tokens" in summary:
        return summary["sampled_tokens"], summary["trained_tokens"]
    trainer, lines = read_config(run)["trainer"], read_metrics(run)
    size = trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"]
    tokens = sum(int(line["mean_tokens"] * size) for line in lines)
    return tokens, round(sum(line["mean_tokens"] * size * (1 - line["zero_credit_frac"]) for line in lines))


def row(
    name: str,
    runs: list[Path],
    spent: Callable[[Path], tuple[int, int]] = cost,
    ends: Callable[[Path], Path] = lambda run: run / "evaluation-after.jsonl",
) -> list[str]:
    """One line of the table: the seeds pooled, each problem with all its samples.

    Args:
        spent: what a run took.
        ends: where its last evaluation is.
    """
    before = Evaluation.pooled([Evaluation.load(run / "evaluation-before.jsonl") for run in runs])
    lasts = [Evaluation.load(ends(run)) for run in runs]
    after = Evaluation.pooled(lasts)
    found, change = after.summary(), difference(before, after)
    each = [last.summary()["mean_tokens"] for last in lasts]
    sampled, trained = (sum(column) / len(runs) for column in zip(*map(spent, runs), strict=True))

    return [
        name, str(len(runs)), f"{100 * found['accuracy']:.1f} %", f"{found['mean_tokens']:.1f}",
        f"{min(each):.1f} to {max(each):.1f}",
        with_interval(change, "accuracy_points", "+.1f"), with_interval(change, "tokens_percent", "+.0f"),
        f"{sampled / 1000:.0f}", f"{trained / 1000:.0f}",
    ]  # fmt: skip


def merged_at(share: str) -> Callable[[Path], Path]:
    """Where a run's average with the start was evaluated."""
    return lambda run: (
        run.with_name(run.name.replace("long2short", "merge")) / f"evaluation-{share}" / "evaluation.jsonl"
    )


def page(folder: Path, seeds: list[int]) -> str:
    """The Markdown of docs/results/long2short.md."""
    rows = []
    stems = {name: stem(selector, recipe) for name, (selector, recipe, _) in TUNED.items()}
    for name, own in (stems | {"HAPO, as released": "hapo"}).items():
        runs = [run for seed in seeds if ((run := folder / f"{own}-{seed}") / "summary.json").exists()]
        rows += [row(name, runs)] if runs else []
    tuned = [run for seed in seeds if (run := folder / f"long2short-{seed}").exists()]
    for share in SHARES:
        rows.append(row(f"{share} of the start + {1 - float(share):g} of it", tuned, ends=merged_at(share)))
    return (
        "# Long2short beside reinforcement learning\n\n"
        "The embedded reasoner on `chain_sum`: 8 samples of each of 128 training problems, a selection, a tuning\n"
        "run; HAPO for comparison. 512 test problems, temperature 1. Changes are paired by problem; [...] is the 95 %\n"
        "interval over problems. Sampled tokens: of the store, which all selections of a seed share, or of the\n"
        "rollouts. DART's uniform quota of 40 keeps all right answers of so few samples. The last lines average the\n"
        "weights of the start with those of the shortest right, SFT: Kimi k1.5's merging, at no further tokens.\n\n"
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
