"""Every method at one budget on five tasks, and its main coefficient at three values: the leaderboard of docs/results.

    python benchmarks/methods.py                         # some hours on two cores
    python benchmarks/methods.py --minutes 30            # starts no cell after that; the next call goes on
    python benchmarks/methods.py --table                 # trains nothing: the pages from the cells that are there
    python benchmarks/methods.py --tasks which_sum --methods grpo hapo --seeds 0 --steps 20 --runs /tmp/t --out /tmp/t

Tasks are the two test beds whose best is known, the embedded task, and two of reasoning-gym, for each of which
`benchmarks/reasoners.py` warms up a tiny reasoner. Each cell (task, method, seed, setting) is one `concise-rl train` in
a folder of its own and is run once. What is kept of it, `benchmarks/stored.py` packs into docs/results/cells, from
which all pages are made. The beds have one of their own (`benchmarks/board.py`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import board, leaderboard, stored
from benchmarks.cells import ROOT, Cell, train_all
from benchmarks.fits import of_task
from benchmarks.leaderboard import Row, row_of
from benchmarks.reasoners import REASONERS, prepare
from concise_rl.methods.registry import method_names
from concise_rl.reporting.plots import plot_methods
from concise_rl.testbeds.beds import BEDS

SWEPT = "running_total"
"""Where coefficients are compared: the bed on which they make a difference."""

TITLES = {
    "chain_sum": "The embedded task: re-checks that buy nothing",
    "count_bits": "reasoning-gym: count_bits",
    "spell_backward": "reasoning-gym: spell_backward",
}


@dataclass(frozen=True)
class Coefficient:
    """The number of a method that says how hard it presses; `default` is the recipe's own."""

    name: str
    override: str
    values: tuple[float, ...]
    default: float


COEFFICIENTS = {
    "hapo": Coefficient("weight", "shaper.hapo.weight={}", (0.25, 0.5, 1.0), 1.0),
    "kimi": Coefficient("weight", "shaper.kimi_length.weight={}", (0.25, 0.5, 1.0), 1.0),
    "pear": Coefficient("alpha", "shaper.pear.alpha={}", (0.5, 1.0, 2.0), 1.0),
    "cosine": Coefficient("least for a right answer", "shaper.cosine.correct=[{},2.0]", (0.0, 1.0, 1.75), 1.0),
    "dapo": Coefficient("cache", "shaper.overlong.cache={}", (32, 64, 128), 32),
    "canon_length": Coefficient("alpha", "advantage.canon.alpha={}", (0.8, 0.9, 1.0), 1.0),
    "canon_entropy": Coefficient("mu", "advantage.canon.mu={}", (0.0, 0.5, 1.0), 1.0),
    "gui_g1": Coefficient("high", "advantage.difficulty_weighted.high={}", (1.0, 1.5, 3.0), 1.5),
    "acoer": Coefficient("alpha", "shaper.acoer.alpha={}", (0.01, 0.02, 0.1), 0.02),
    "alp": Coefficient("beta", "shaper.alp.beta={}", (0.02, 0.05, 0.2), 0.05),
    "arora": Coefficient("alpha", "shaper.arora.alpha={}", (0.05, 0.1, 0.3), 0.1),
    "ddca": Coefficient("beta", "advantage.ddca.beta={}", (0.1, 0.2, 0.5), 0.2),
    "decs": Coefficient("b", "advantage.decs.b={}", (0.05, 0.1, 0.2), 0.1),
    "deep_compress": Coefficient("weight", "shaper.deep_compress.weight={}", (0.1, 0.2, 0.5), 0.2),
    "diet": Coefficient("weight", "advantage.diet.weight={}", (0.25, 0.5, 1.0), 0.5),
    "discounted": Coefficient("gamma", "shaper.discount.gamma={}", (0.99, 0.999, 0.9999), 0.9999),
    "dler": Coefficient("boost", "advantage.dler.boost={}", (0.05, 0.1, 0.3), 0.1),
    "dot": Coefficient("alpha", "cut.dot.alpha={}", (2.0, 3.0, 4.0), 3.0),
    "gr3": Coefficient("alpha", "shaper.gr3.alpha={}", (0.1, 0.3, 1.0), 0.3),
    "grlc": Coefficient("lam_think", "shaper.group_length.lam_think={}", (0.1, 0.25, 0.5), 0.5),
    "grpo_lambda": Coefficient("alpha", "shaper.top_lambda.alpha={}", (0.3, 0.6, 0.9), 0.6),
    "grpo_lead": Coefficient("alpha", "shaper.lead.alpha={}", (0.02, 0.05, 0.2), 0.05),
    "laser": Coefficient("alpha", "shaper.laser.alpha={}", (0.25, 0.5, 1.0), 0.5),
    "leash": Coefficient("lam0", "shaper.leash.lam0={}", (0.05, 0.1, 0.3), 0.1),
    "prime_rl_linear": Coefficient("output_weight", "advantage.vector_cost.output_weight={}", (0.1, 0.25, 0.5), 0.25),
    "qglas": Coefficient("c", "advantage.qglas.c={}", (0.25, 0.5, 1.0), 0.5),
    "shorter_better": Coefficient("beta", "shaper.shorter_better.beta={}", (0.01, 0.03, 0.1), 0.03),
}
"""What presses, one number a method. Others have none (GRPO's loss and its kin, samplers, most curricula), or ask in
words that the bed's reasoner does not read; Shop-R1's factor is divided out where the answer is the only part."""


Records = Mapping[Cell, stored.Record]

UNSCALED = "advantage.group_relative.scale=none"

VARIANTS = {
    ("canon_length", "alpha=0.9"): ("advantage.canon.alpha=0.9",),
    ("hapo", "weight=0.25"): ("shaper.hapo.weight=0.25",),
    ("kimi", "weight=0.25"): ("shaper.kimi_length.weight=0.25",),
    ("kimi", "weight=0.25_unscaled"): ("shaper.kimi_length.weight=0.25", UNSCALED),
    ("kimi", "weight=1_unscaled"): ("shaper.kimi_length.weight=1", UNSCALED),
}
"""Method and setting to its overrides: what competes on the beds beside the recipes."""

GROUP_SIZES = (2, 4)
"""Completions a prompt, as many rows a step as ever: where history may help that a group's own statistics do not."""
GROUPED = ("grpo", "hapo", "kimi")


def cells_of(task: str, methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The leaderboard of a task, seed by seed."""
    return [Cell(task, method, seed, overrides=of_task(method, task)) for seed in seeds for method in methods]


def competing(task: str, methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """What a task's leaderboard ranks: the recipes and, on a bed, the variants of the methods; seed by seed."""
    variants = [item for item in VARIANTS.items() if item[0][0] in methods and task in BEDS]
    return [
        cell
        for seed in seeds
        for cell in (
            *cells_of(task, methods, [seed]),
            *(Cell(task, method, seed, setting, overrides) for (method, setting), overrides in variants),
        )
    ]


def grouped(methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Small groups on bed M."""
    return [
        Cell(SWEPT, method, seed, f"group={size}", (f"trainer.num_generations={size}",))
        for seed in seeds
        for size in GROUP_SIZES
        for method in GROUPED
        if method in methods
    ]


def swept(methods: Sequence[str], seed: int) -> list[tuple[Cell, float]]:
    """Each method's coefficient on bed M, one seed; the recipe's own value is the leaderboard's cell."""
    found = []
    for method in methods:
        if method in COEFFICIENTS:
            coefficient = COEFFICIENTS[method]
            for value in coefficient.values:
                override = coefficient.override.format(value)
                own = value == coefficient.default
                setting = "" if own else f"{coefficient.name.replace(' ', '_')}={value:g}"
                overrides = of_task(method, SWEPT) + (() if own else (override,))
                found.append((Cell(SWEPT, method, seed, setting, overrides), value))
    return found


def plan(options: argparse.Namespace) -> list[Cell]:
    """All cells, in the order in which they teach most: a seed of every task, the sweeps, the other seeds."""
    first, *others = options.seeds
    cells = [cell for task in options.tasks for cell in competing(task, options.methods, [first])]
    if SWEPT in options.tasks:
        cells += [cell for cell, _ in swept(options.methods, first)]
        cells += grouped(options.methods, options.seeds)
    cells += [cell for seed in others for task in options.tasks for cell in competing(task, options.methods, [seed])]
    return list(dict.fromkeys(cells))


def rows_of(cells: Sequence[Cell], records: Records) -> list[Row]:
    """A row for each method and setting with a record: by regret where the best is known, else the shortest first."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell in records:
            found.setdefault((cell.method, cell.setting), []).append(cell)
    starts: dict[tuple[Cell, ...], leaderboard.Start] = {}
    rows = []
    for own in found.values():
        before = tuple(Cell(cell.task, stored.BEFORE, cell.seed) for cell in own)
        if before not in starts:
            starts[before] = leaderboard.start_of([records[cell] for cell in before])
        rows.append(row_of([records[cell] for cell in own], starts[before]))
    return leaderboard.ranked(rows)


def sweep_rows(options: argparse.Namespace, records: Records) -> list[Row]:
    """A row for each value of each coefficient, of the methods that have a record at two or more."""
    rows = []
    for method in options.methods:
        done = [(cell, value) for cell, value in swept([method], options.seeds[0]) if cell in records]
        for cell, value in done if len(done) > 1 else ():
            named = {"coefficient": COEFFICIENTS[method].name, "value": f"{value:g}"}
            rows += [row | named for row in rows_of([cell], records)]
    return rows


def pages(options: argparse.Namespace, records: Records) -> None:
    """Tables and pictures of all cells that are there: the beds on one page, the other tasks on another."""
    cells = plan(options)
    sweeps = sweep_rows(options, records) if SWEPT in options.tasks else []
    tables = {
        task: rows
        for task in options.tasks
        if (rows := rows_of(competing(task, options.methods, options.seeds), records))
    }
    beds = {task: rows for task, rows in tables.items() if task in BEDS}
    if beds:
        asked = [cell for cell in cells if cell.task in BEDS]
        missing = sum(cell not in records for cell in asked)
        small = rows_of(grouped(options.methods, options.seeds), records)
        board.write(options.out, board.Board(beds, sweeps, small, len(asked), missing))
    others = {task: rows for task, rows in tables.items() if task not in BEDS}
    if others:
        page = options.out / "README.md"
        lines = ["# Methods at one budget", "", *PREFACE, "", leaderboard.findings(page)]
        for task, rows in others.items():
            lines += [f"## {TITLES[task]}", "", *task_section(task, rows, options)]
        page.write_text("\n".join(lines))
        print(f"written: {page}")


def task_section(task: str, rows: Sequence[Row], options: argparse.Namespace) -> list[str]:
    """The table of a task, its rows as JSON and CSV, and its picture."""
    stem = options.out / ("methods" if task == "chain_sum" else task)
    leaderboard.write(rows, stem)
    plot_methods(rows, stem.with_suffix(".png"))
    lines = [leaderboard.facts(rows), leaderboard.start(rows), "", *leaderboard.table(rows), ""]
    return [*lines, f"![accuracy against tokens]({stem.name}.png)", ""]


PREFACE = (
    "Made by `python benchmarks/methods.py` from the cells that are finished; the same command goes on with the rest.",
    "",
    "- [...] is a 95 % bootstrap interval clustered by problem, the seeds being samples of each problem; ± is half the",
    "  range over seeds.",
    "- AES: relative saving of tokens, plus 3 times a relative gain of accuracy or minus 5 times a loss (arXiv",
    "  2501.12570), against the model before training.",
    f"- Budget area: mean accuracy if sampling stopped at {', '.join(map(str, leaderboard.BUDGETS[:-1]))} or "
    f"{leaderboard.BUDGETS[-1]} tokens,",
    "  each doubling weighing alike (the trapezoids in log scale); from the stored completions.",
    "- x oracle: tokens over those of the shortest reasoning that shows every step.",
    "- s: training, median over seeds, on a machine that did other things too: rough.",
    "- Methods that do badly stay.",
    "",
    "Where thinking pays: [leaderboard.md](leaderboard.md).",
    "On real language models: [smollm2.md](smollm2.md), [mawps.md](mawps.md).",
    "The demo's three seeds: [demo.md](demo.md).",
)


def run(options: argparse.Namespace) -> None:
    """Train what is neither stored nor trained yet."""
    reasoners = options.runs / "reasoners"
    for task in options.tasks:
        prepare(REASONERS[task], reasoners)
    steps = [] if options.steps is None else [f"trainer.max_steps={options.steps}"]

    def overrides(cell: Cell) -> list[str]:
        return [*REASONERS[cell.task].overrides(reasoners), *steps, "trainer.save_strategy=no"]

    records = stored.load(options.out / "cells")
    missing = [cell for cell in plan(options) if cell not in records]
    train_all(missing, options.runs, overrides, options.workers, options.minutes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    tasks = list(REASONERS)
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--methods", nargs="+", choices=method_names(), default=method_names())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of each run; default: what the task's model recipe says")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, help="start no cell after these")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "methods", help="where the cells are stored")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--table", action="store_true", help="train nothing: tabulate the cells that are there")
    options = parser.parse_args()
    if not options.table:
        run(options)
    options.out.mkdir(parents=True, exist_ok=True)
    pages(options, stored.collect(plan(options), options.runs, options.out / "cells"))


if __name__ == "__main__":
    main()
