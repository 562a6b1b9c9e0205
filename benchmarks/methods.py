"""Every method at one budget on the embedded task, three seeds each: the leaderboard of docs/results.

    python benchmarks/methods.py                         # about an hour on two cores
    python benchmarks/methods.py --methods grpo hapo --seeds 0 --steps 20 --out /tmp/trial

Each cell (method, seed) is one `concise-rl train` in a folder of its own and is run once: a second call goes on where
the first stopped. The table is written from the folders' summary.json, so it can be made again at any time.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from concise_rl.config import method_names
from concise_rl.evaluation import Evaluation, EvaluationRow, difference
from concise_rl.reporting.plots import plot_methods

ROOT = Path(__file__).parent.parent
Cell = tuple[str, int]


def train(cell: Cell, folder: Path, overrides: Sequence[str]) -> Path:
    """One cell, unless it is there already."""
    method, seed = cell
    run = folder / f"{method}-seed{seed}"
    if not (run / "summary.json").exists():
        command = [sys.executable, "-m", "concise_rl.train", f"method={method}", f"seed={seed}", f"run.dir={run}"]
        command += ["run.progress=false", "run.rollouts_every=0", "overwrite=true", *overrides]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return run


def train_all(cells: Sequence[Cell], folder: Path, overrides: Sequence[str], workers: int) -> dict[Cell, Path]:
    """All cells, `workers` at a time; says how long is left."""
    started, runs, fresh = time.monotonic(), {}, 0
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(train, cell, folder, overrides): cell for cell in cells}
        for done in as_completed(waiting):
            cell = waiting[done]
            try:
                runs[cell] = done.result()
            except RuntimeError as error:
                print(f"FAILED {cell}: {error}", flush=True)
                continue
            fresh += 1
            left = (time.monotonic() - started) / fresh * (len(cells) - fresh)
            summary = json.loads((runs[cell] / "summary.json").read_text())
            print(f"[{fresh}/{len(cells)}, {left / 60:.0f} min left] {cell[0]} seed {cell[1]}: {summary['headline']}")
            sys.stdout.flush()
    return runs


def row_of(method: str, runs: Sequence[Path]) -> dict[str, Any]:
    """A method over its seeds: means, and intervals of a bootstrap over problems with the seeds as their samples."""
    before, after = (
        pooled([Evaluation.load(run / f"evaluation-{name}.jsonl") for run in runs]) for name in ("before", "after")
    )
    found, change = after.summary(), difference(before, after)
    seconds = [json.loads((run / "summary.json").read_text())["training_seconds"] for run in runs]
    per_seed = [json.loads((run / "summary.json").read_text()) for run in runs]
    row = {
        "method": method,
        "seeds": len(runs),
        "accuracy": found["accuracy"],
        "accuracy_interval": found["accuracy_interval"],
        "mean_tokens": found["mean_tokens"],
        "mean_tokens_interval": found["mean_tokens_interval"],
        "oracle_ratio": found["oracle_ratio"],
        "accuracy_points": change["accuracy_points"],
        "accuracy_points_interval": change["accuracy_points_interval"],
        "tokens_percent": change["tokens_percent"],
        "tokens_percent_interval": change["tokens_percent_interval"],
        "training_seconds": statistics.mean(seconds),
        "before": before.summary(),
    }
    row["accuracy_seeds"] = [run["after"]["accuracy"] for run in per_seed]
    row["mean_tokens_seeds"] = [run["after"]["mean_tokens"] for run in per_seed]
    return row


def pooled(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations of the same problems as one, with a sample of each problem from every run."""
    rows: list[EvaluationRow] = []
    for k, evaluation in enumerate(evaluations):
        rows += [EvaluationRow(**{**vars(row), "sample": row.sample + k * 1000}) for row in evaluation.rows]
    return Evaluation(rows)


def markdown(rows: Sequence[Mapping[str, Any]], facts: str) -> str:
    """The page: how it was made, the table, the plot."""
    start = rows[0]["before"]
    lines = [
        "# Methods on the embedded task",
        "",
        facts,
        "",
        f"Before training: {start['accuracy']:.1%} right at {start['mean_tokens']:.1f} tokens; the shortest correct "
        f"reasoning takes {start['mean_tokens'] / start['oracle_ratio']:.1f}. Sampled at temperature 1.",
        "[...] is a 95 % bootstrap interval clustered by problem, the seeds being samples of each problem; the spread",
        "over seeds is what stands after ±, half the range. Seconds were taken on a shared machine: rough.",
        "Methods that do badly stay.",
        "",
        "| method | seeds | accuracy, % | ± | mean tokens | ± | x oracle | accuracy, points | tokens, % | s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        accuracy = [100 * x for x in (r["accuracy"], *r["accuracy_interval"])]
        cells = [
            f"[{r['method']}](../methods/{r['method']}.md)",
            str(r["seeds"]),
            with_interval(accuracy, ".1f"),
            f"{50 * (max(r['accuracy_seeds']) - min(r['accuracy_seeds'])):.1f}",
            with_interval([r["mean_tokens"], *r["mean_tokens_interval"]], ".1f"),
            f"{(max(r['mean_tokens_seeds']) - min(r['mean_tokens_seeds'])) / 2:.1f}",
            f"{r['oracle_ratio']:.2f}",
            with_interval([r["accuracy_points"], *r["accuracy_points_interval"]], "+.1f"),
            with_interval([r["tokens_percent"], *r["tokens_percent_interval"]], "+.0f"),
            f"{r['training_seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![accuracy against tokens](methods.png)", ""])


def with_interval(values: Sequence[float], form: str) -> str:
    value, low, high = (format(v, form) for v in values)
    return f"{value} [{low}, {high}]"


def facts(options: argparse.Namespace) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return (
        f"Made by `python benchmarks/methods.py` on {time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip()}, "
        f"{processor()}, {os.cpu_count()} cores, {options.workers} runs at a time with one OpenMP thread each; "
        f"{options.steps} steps of 16 prompts x 8 completions of 128 training problems."
    )


def processor() -> str:
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return names[0].split(":")[1].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=method_names())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "methods", help="where the cells are stored")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--table", action="store_true", help="train nothing: tabulate the cells that are there")
    options = parser.parse_args()
    cells = [(method, seed) for seed in options.seeds for method in options.methods]
    if options.table:
        folders = {cell: options.runs / f"{cell[0]}-seed{cell[1]}" for cell in cells}
        runs = {cell: folder for cell, folder in folders.items() if (folder / "summary.json").exists()}
    else:
        runs = train_all(cells, options.runs, [f"trainer.max_steps={options.steps}"], options.workers)
    of_method = {m: [run for (name, _), run in sorted(runs.items()) if name == m] for m in options.methods}
    rows = [row_of(method, folders) for method, folders in of_method.items() if folders]
    rows.sort(key=lambda row: row["mean_tokens"])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "README.md").write_text(markdown(rows, facts(options)))
    (options.out / "methods.json").write_text(json.dumps(rows, indent=1) + "\n")
    with (options.out / "methods.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [key for key in rows[0] if key != "before"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    plot_methods(rows, options.out / "methods.png")
    print(f"written: {options.out / 'README.md'}")


if __name__ == "__main__":
    main()
