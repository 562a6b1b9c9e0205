"""Cells of an experiment: each one `concise-rl train` in a folder of its own, run once."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
ORIGIN = "origin.json"
"""Commit and date of a cell, written when it is whole."""


@dataclass(frozen=True)
class Cell:
    """One method with one seed on one task, and what differs from its recipe.

    Attributes:
        task: names the folder that holds the cell.
        method: recipe name.
        seed: of the training.
        setting: names what differs from the recipe, such as `weight=0.5`; empty where nothing does.
        overrides: that difference, as overrides of `concise-rl train`.
    """

    task: str
    method: str
    seed: int
    setting: str = ""
    overrides: tuple[str, ...] = ()

    def folder(self, runs: Path) -> Path:
        return runs / self.task / "-".join(filter(None, (self.method, self.setting, f"seed{self.seed}")))

    def done(self, runs: Path) -> bool:
        return (self.folder(runs) / ORIGIN).exists()

    def __str__(self) -> str:
        return " ".join(filter(None, (self.task, self.method, self.setting, f"seed {self.seed}")))


def by_setting(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that differ in their seed alone, together; in the order of the first of each."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.method, cell.setting), []).append(cell)
    return list(found.values())


def run_command(*words: str) -> None:
    """A command of this checkout, on one OpenMP thread.

    Raises:
        RuntimeError: it failed; holds it and the end of what it wrote.
    """
    command = [sys.executable, "-m", "concise_rl.cli", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def train(cell: Cell, runs: Path, overrides: Sequence[str]) -> None:
    """One cell; raises `RuntimeError` where its command failed."""
    words = ["train", f"method={cell.method}", f"seed={cell.seed}", f'run.dir="{cell.folder(runs)}"']
    words += ["run.progress=false", "run.rollouts_every=0", "overwrite=true"]
    run_command(*words, *overrides, *cell.overrides)
    origin = {"commit": commit(), "date": time.strftime("%Y-%m-%d")}
    (cell.folder(runs) / ORIGIN).write_text(json.dumps(origin) + "\n")


def train_all(
    cells: Sequence[Cell], runs: Path, overrides: Callable[[Cell], Sequence[str]], workers: int, minutes: float | None
) -> None:
    """All cells that are not there yet, `workers` at a time; says how long is left.

    With `minutes`, none is started after them. A cell that fails is reported, and the others go on.
    """
    missing = [cell for cell in cells if not cell.done(runs)]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are there", flush=True)
    started, finished = time.monotonic(), 0

    def one(cell: Cell) -> bool:
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            return False
        train(cell, runs, overrides(cell))
        return True

    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(one, cell): cell for cell in missing}
        for done in as_completed(waiting):
            cell = waiting[done]
            try:
                if not done.result():
                    continue
            except RuntimeError as error:
                print(f"FAILED {cell}: {error}", flush=True)
                continue
            finished += 1
            left = (time.monotonic() - started) / finished * (len(missing) - finished) / 60
            headline = json.loads((cell.folder(runs) / "summary.json").read_text())["headline"]
            print(f"[{finished}/{len(missing)}, {left:.0f} min left] {cell}: {headline}", flush=True)


def commit() -> str:
    """The commit of this checkout, short; empty without git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return names[0].split(":")[1].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
