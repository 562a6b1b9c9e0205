"""How the per-prompt store scales: one file's size, saving, loading, recording and looking up.

python benchmarks/history.py [--prompts 1000000]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from concise_rl.data.base import content_key
from concise_rl.engine.checkpoint import load_state, save_state
from concise_rl.methods.history import History

ROWS = 1000
REPEATS = 200


def seconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and smallest wall time of a call: the smallest is what the code takes when nothing else runs."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)), min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    n_prompts = parser.parse_args().prompts

    rng = np.random.default_rng(0)
    prompt_ids = [content_key(str(number)) for number in range(n_prompts)]
    history = History.empty()
    for start in range(0, n_prompts, 50_000):
        part = prompt_ids[start : start + 50_000]
        history.record_mean(part, rng.integers(1, 8000, len(part)))

    def some_rows() -> tuple[list[str], np.ndarray]:
        return [prompt_ids[n] for n in rng.integers(0, n_prompts, ROWS)], rng.integers(1, 8000, ROWS)

    steps = iter([some_rows() for _ in range(3 * REPEATS)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saving = seconds(lambda: save_state(folder, {"shaper": history}, {"step": 0}), 5)
        loading = seconds(lambda: load_state(folder), 5)
        megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    lines = [("save, s", saving, 1.0), ("load, s", loading, 1.0)]
    lines.append((f"record_min of {ROWS} rows, ms", seconds(lambda: history.record_min(*next(steps)), REPEATS), 1e3))
    lines.append((f"record_mean of {ROWS} rows, ms", seconds(lambda: history.record_mean(*next(steps)), REPEATS), 1e3))
    lines.append((f"lookup of {ROWS} rows, ms", seconds(lambda: history.lookup(next(steps)[0]), REPEATS), 1e3))

    print(f"{n_prompts:,} prompts; {cpu()}, {os.cpu_count()} cores; Python {platform.python_version()}, ", end="")
    print(f"numpy {np.__version__}; {datetime.date.today()}; load average {os.getloadavg()[0]:.1f}\n")
    print("| what | median | smallest |\n|---|---|---|")
    print(f"| file, MB | {megabytes:.2f} | {megabytes:.2f} |")
    for label, (median, smallest), unit in lines:
        print(f"| {label} | {median * unit:.2f} | {smallest * unit:.2f} |")


def cpu() -> str:
    """The processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return models[0].partition(": ")[2] if models else platform.machine()


if __name__ == "__main__":
    main()
