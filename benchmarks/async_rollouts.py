"""HAPO on the embedded model, sampled step by step and sampled ahead: wall time, accuracy and tokens, seed by seed.

    OMP_NUM_THREADS=1 python benchmarks/async_rollouts.py              # prints the table of docs/performance.md
    OMP_NUM_THREADS=1 python benchmarks/async_rollouts.py --runs runs/ahead      # keeps the runs, and takes those there

It needs two idle cores: what other processes took of all cores meanwhile stands beside each run. Each run is a process
of its own, with its evaluations before and after; the engines take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.leaderboard import with_interval
from concise_rl.reporting.run_log import read_metrics

ENGINES = ("sync", "async")
HEAD = """\
| engine | seed | training s | sampling s | update s | others % | accuracy % | mean tokens |
|---|--:|--:|--:|--:|--:|--:|--:|"""


def train(folder: Path, engine: str, seed: int, steps: int) -> None:
    """One run, and the share of all cores that other processes took meanwhile."""
    overrides = [f"engine={engine}", f"seed={seed}", f"trainer.max_steps={steps}"]
    command = [sys.executable, "-m", "concise_rl.train", "method=hapo", *overrides, f"run.dir={folder}"]
    (busy, every), own = cores(), own_seconds()
    subprocess.run([*command, "run.progress=false"], check=True, stdout=subprocess.DEVNULL)
    (busy_then, every_then), own = cores(), own_seconds() - own
    (folder / "others").write_text(f"{max(0.0, busy_then - busy - own) / (every_then - every):.4f}")


def cores() -> tuple[float, float]:
    """Seconds that the cores of this machine were busy, and all of theirs, since it started (Linux)."""
    ticks = [int(count) for count in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz  # less idle, and waiting for the disk


def own_seconds() -> float:
    """Processor seconds of the runs so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def facts(folder: Path) -> dict[str, Any]:
    """Seconds of training, of the trainer's sampling or waiting, and of the rest of its steps; the last evaluation."""
    lines, summary = read_metrics(folder), json.loads((folder / "summary.json").read_text())
    return summary["after"] | {
        "seconds": summary["training_seconds"],
        "sampling": sum(line["generate_seconds"] for line in lines),
        "update": sum(line["step_time"] - line["generate_seconds"] for line in lines),
        "others": 100 * float((folder / "others").read_text()),
    }


def row(engine: str, seed: int, found: dict[str, Any]) -> str:
    accuracy, tokens = with_interval(found, "accuracy", ".1f", 100), with_interval(found, "mean_tokens", ".1f")
    seconds = " | ".join(f"{found[name]:.1f}" for name in ("seconds", "sampling", "update"))
    return f"| {engine} | {seed} | {seconds} | {found['others']:.0f} | {accuracy} | {tokens} |"


def sentence(sync: list[dict[str, Any]], ahead: list[dict[str, Any]]) -> str:
    """The ratio of the runs, and the least that hiding the shorter of sampling and update could have made it."""
    ratio = sum(run["seconds"] for run in ahead) / sum(run["seconds"] for run in sync)
    hidden = sum(min(run["sampling"], run["update"]) for run in sync)
    bound = 1 - hidden / sum(run["seconds"] for run in sync)
    each = ", ".join(f"{b['seconds'] / a['seconds']:.2f}" for a, b in zip(sync, ahead, strict=True))
    return f"async / sync: {ratio:.2f} ({each}); with all of the shorter part hidden it would be {bound:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--runs", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folders = {
            (engine, seed): (options.runs or Path(place)) / f"{engine}-{seed}"
            for seed in options.seeds
            for engine in ENGINES
        }
        for (engine, seed), folder in folders.items():
            if not (folder / "others").exists():
                train(folder, engine, seed, options.steps)
        found = {key: facts(folder) for key, folder in folders.items()}
    print(HEAD, *(row(*key, one) for key, one in found.items()), sep="\n")
    print("\n" + sentence(*([found[engine, seed] for seed in options.seeds] for engine in ENGINES)))


if __name__ == "__main__":
    main()
