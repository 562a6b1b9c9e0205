"""Three methods on the bed in which thinking pays, and the best that is possible, in one picture: `make tradeoff`.

    python benchmarks/tradeoff.py                  # at most five minutes of two cores; runs/tradeoff/tradeoff.png

GRPO thinks more, Kimi's length reward at its paper's weight presses too hard, the cosine reward lies between.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import leaderboard
from benchmarks.cells import ROOT, Cell, train_all
from benchmarks.reasoners import REASONERS
from benchmarks.stored import pack
from concise_rl.reporting.plots import plot_methods

BED = "running_total"
CELLS = tuple(Cell(BED, method, seed=0) for method in ("grpo", "cosine", "kimi"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "tradeoff")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--steps", type=int, help="of each run; default: what the bed's model recipe says")
    options = parser.parse_args()
    steps = [] if options.steps is None else [f"trainer.max_steps={options.steps}"]

    def overrides(cell: Cell) -> list[str]:
        return [*REASONERS[cell.task].overrides(options.runs), *steps, "trainer.save_strategy=no"]

    train_all(CELLS, options.runs, overrides, options.workers, minutes=None)
    packed = [pack(cell, options.runs) for cell in CELLS if cell.done(options.runs)]
    rows = leaderboard.ranked([leaderboard.row_of([after], leaderboard.start_of([before])) for before, after in packed])
    if not rows:
        sys.exit(1)
    picture = options.runs / "tradeoff.png"
    plot_methods(rows, picture, leaderboard.stored_frontier(rows))
    print("\n".join(leaderboard.bed_tables(rows)))
    print(f"accuracy against tokens, with the best that is possible: {picture}")


if __name__ == "__main__":
    main()
