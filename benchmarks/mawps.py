"""A real language model that thinks where it pays: Qwen2.5-Coder-0.5B-Instruct on problems of one and two operations.

Step by step it answers more of them than directly, so pressing its answers costs accuracy. GRPO is the control; HAPO,
Kimi and CANON press, each at the mildest setting of its recipe's comments.

    python benchmarks/mawps.py --mawps FOLDER                      # on a GPU: MultiArith and SingleOp in FOLDER
    python benchmarks/mawps.py --mawps FOLDER --device cpu --rows 32 --steps 12 --every 4 --trained 16 --workers 2
                                                                   # half an hour a run; goes on where it stopped
    python benchmarks/mawps.py --table                             # trains nothing: the page from the runs there

FOLDER holds multiarith.jsonl and singleop.jsonl with the columns `input` and `target`, as in QwenLM/Qwen2.5-Math
(evaluation/data/mawps). Writes docs/results/mawps.md and mawps.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.cells import ROOT, Cell, by_setting, run_command, train_all
from benchmarks.leaderboard import findings, with_interval
from benchmarks.model_pages import LEARNING, examples, learning, made, method_row, name, sides, table
from concise_rl.engine import checkpoint
from concise_rl.evaluation import Evaluation, difference
from concise_rl.reporting.run_log import read_metrics

MODEL = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
HELD_OUT = 160
"""Problems that the start, the checkpoints and the trained model are evaluated on."""

LEARNING_RATE = 2e-4
"""At 8e-4 no completion was right after four steps, GRPO's neither."""

KINDS = (
    ("grpo", "loss_type=bnpo", ("trainer.loss_type=bnpo",)),
    ("hapo", "weight=0.25", ("shaper.hapo.weight=0.25",)),
    ("kimi", "weight=0.25,scale=none", ("shaper.kimi_length.weight=0.25", "advantage.group_relative.scale=none")),
    ("canon_length", "alpha=0.9", ("advantage.canon.alpha=0.9",)),
)
"""Method, what differs from its recipe, and that as overrides. GRPO gets the others' average of the loss."""


def problems(folder: Path, out: Path, trained: int) -> None:
    """Disjoint train.jsonl and test.jsonl, half of either kind, evenly spread over the files."""
    sides: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for kind in ("multiarith", "singleop"):
        rows = [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text().splitlines()]
        distinct = list({row["input"]: row | {"kind": kind} for row in rows}.values())
        wanted = (trained + HELD_OUT) // 2
        spread = [distinct[k * len(distinct) // wanted] for k in range(wanted)]
        # Neighbours in the file are often one problem with other numbers, so a side takes a stretch, not every nth.
        sides["train"] += spread[: trained // 2]
        sides["test"] += spread[trained // 2 :]
    out.mkdir(parents=True, exist_ok=True)
    for side, rows in sides.items():
        (out / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


COLUMNS = {"question_column": "input", "answer_column": "target", "verifier": "final_number", "columns": "[kind]"}


def asked(options: argparse.Namespace, group: str) -> list[str]:
    """What training and evaluating share; `group` has the columns: `data` or `benchmark`."""
    shared = ["model=hf", "model.dtype=bfloat16", "trainer.max_completion_length=256", "evaluation.temperature=0.5"]
    shared += ["system_prompt='Please reason step by step, then give the final number.'"]
    shared += [f"evaluation.problems={options.problems}"]
    return [*shared, *(f"{group}.{name}={value}" for name, value in COLUMNS.items())]


def overrides(options: argparse.Namespace) -> list[str]:
    data = options.runs / "mawps" / "data"
    model = [f"model.path={options.model}", "peft=lora", f"trainer.learning_rate={LEARNING_RATE}"]
    if options.device == "cuda":
        model += ["trainer.use_cpu=false", "trainer.bf16=true", "trainer.max_tokens_per_microbatch=16384"]
    task = ["data=local", f"data.path={data}/train.jsonl", f"data.test_path={data}/test.jsonl"]
    size = [f"trainer.per_device_train_batch_size={options.rows}", f"trainer.max_steps={options.steps}"]
    size += [f"trainer.num_generations={min(8, options.rows)}", "trainer.temperature=0.5"]
    keep = [f"trainer.save_steps={options.every}", "trainer.save_total_limit=null", "resume=auto"]
    return [*model, *task, *size, *keep, *asked(options, "data")]


def on_the_way(cell: Cell, runs: Path) -> dict[int, Path]:
    """The steps whose checkpoints are kept, and the folder of each one's evaluation, whole once it has a summary."""
    folder = cell.folder(runs)
    return {step: folder / "steps" / str(step) / "file" for step in checkpoint.steps(folder)}


def evaluate_steps(cells: Sequence[Cell], options: argparse.Namespace) -> None:
    """Evaluate the checkpoints on the way, as the run evaluated its start; those that are whole already are left."""

    def evaluate(cell: Cell, step: int, out: Path) -> None:
        words = ["eval", f'model.path="{cell.folder(options.runs) / f"checkpoint-{step}"}"', f'out="{out.parent}"']
        words += ["benchmark=file", f"benchmark.path={options.runs / 'mawps' / 'data' / 'test.jsonl'}"]
        run_command(*words, *asked(options, "benchmark"))

    with ThreadPoolExecutor(options.workers) as pool:
        waiting = [
            pool.submit(evaluate, cell, step, out)
            for cell in cells
            for step, out in on_the_way(cell, options.runs).items()
            if step < options.steps and not (out / "summary.json").exists()
        ]
    for evaluated in waiting:
        evaluated.result()


Way = dict[int, dict[str, Any]]
"""The summaries of a run's evaluations by step: of its start, its checkpoints, its end."""


def way_of(cell: Cell, runs: Path) -> Way:
    folder = cell.folder(runs)
    stored = {0: folder / "evaluation-before.jsonl"}
    for step, out in sorted(on_the_way(cell, runs).items()):
        if (out / "summary.json").exists():
            stored[step] = out / "evaluation.jsonl"
    stored[int(read_metrics(folder)[-1]["step"])] = folder / "evaluation-after.jsonl"
    return {step: Evaluation.load(path).summary() for step, path in stored.items()}


def way_table(ways: Mapping[Cell, Way]) -> list[str]:
    """Accuracy, % / tokens at each evaluated step, a column a run."""
    lines = [f"| step | {' | '.join(name(c.method, c.setting, c.seed) for c in ways)} |"]
    lines.append("|--:|" + "---|" * len(ways))
    for step in sorted({step for way in ways.values() for step in way}):
        found = [way.get(step) for way in ways.values()]
        shown = [f"{100 * one['accuracy']:.1f} / {one['mean_tokens']:.0f}" if one else "" for one in found]
        lines.append(f"| {step} | {' | '.join(shown)} |")
    return lines


def by_kind(kinds: Sequence[Sequence[Cell]], runs: Path) -> list[str]:
    """Accuracy and tokens on problems of two operations and of one, before training and after it, the seeds pooled."""
    lines = ["| | MultiArith: right, % | points | tokens | % | SingleOp: right, % | points | tokens | % |"]
    lines.append("|---|" + "--:|" * 8)
    for number, cells in enumerate(kinds):
        pooled = sides(cells, runs)
        shown: tuple[list[str], list[str]] = ([], [])
        for kind in ("multiarith", "singleop"):
            before, after = (
                dataclasses.replace(side, rows=[row for row in side.rows if row.columns["kind"] == kind])
                for side in pooled
            )
            change = difference(before, after)
            for values, side in zip(shown, (before, after), strict=True):
                found = side.summary()
                later = side is after
                values.append(f"{100 * found['accuracy']:.1f}")
                values.append(with_interval(change, "accuracy_points", "+.1f") if later else "")
                values.append(f"{found['mean_tokens']:.1f}")
                values.append(with_interval(change, "tokens_percent", "+.0f") if later else "")
        if not number:
            lines.append(f"| before training | {' | '.join(shown[0])} |")
        lines.append(f"| {name(cells[0].method, cells[0].setting)} | {' | '.join(shown[1])} |")
    return lines


def draw(ways: Mapping[Cell, Way], runs: Path, path: Path) -> None:
    """Left each run's way through tokens and accuracy on the held-out problems; right the tokens of its steps.

    A colour a method, a line a run, a dot an evaluation.
    """
    figure = Figure(figsize=(9.6, 4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    held_out, steps = figure.subplots(1, 2)
    seed = next(iter(ways)).seed
    for colour, cells in enumerate(by_setting(ways)):
        for cell in cells:
            first = cell.seed == seed
            style: dict[str, Any] = {"color": f"C{colour}", "linestyle": "-" if first else "--"}
            found = ways[cell].values()
            label = name(cell.method, cell.setting) if first else None
            held_out.plot([f["mean_tokens"] for f in found], [100 * f["accuracy"] for f in found], marker="o",
                          markersize=3, label=label, **style)  # fmt: skip
            logs = read_metrics(cell.folder(runs))
            steps.plot([log["step"] for log in logs], [log["mean_tokens"] for log in logs], **style)
    held_out.set(xlabel="mean tokens of a completion, held-out problems", ylabel="right, %")
    steps.set(xlabel="step", ylabel="mean tokens of the step's completions")
    steps.set_ylim(0, None)
    held_out.legend(fontsize=8)
    for ax in (held_out, steps):
        ax.set_xlim(0, None)
        ax.grid(alpha=0.25)
    figure.savefig(path)


def page(ways: Mapping[Cell, Way], options: argparse.Namespace) -> str:
    cells = list(ways)
    of_kind = by_setting(cells)
    rows = [method_row(own, options.runs) for own in of_kind]
    shown = [cell for cell in cells if cell.seed == cells[0].seed]
    facts = vars(options) | {"command": command_of(options), "made": made(rows)}
    lines = [PREFACE.format(**facts), *table(rows), "", "## By kind of problem", ""]
    lines += [*by_kind(of_kind, options.runs), ""]
    lines += [findings(options.out), "## On the way", "", "Right, % / tokens of the start, the checkpoints, the end."]
    lines += ["", *way_table(ways), "", f"![the way of each run]({options.out.stem}.png)", ""]
    lines += [f"Solid lines are of seed {cells[0].seed}, dashed ones of the others.", ""]
    lines += ["## Training", "", LEARNING, "", *learning(shown, options.runs), ""]
    return "\n".join([*lines, "## Answers", "", *examples(shown, options.runs), ""])


PREFACE = """# A real language model that thinks where it pays

{model}, LoRA, bfloat16, {steps} steps of {rows} completions, temperature 0.5, 256 tokens at most, on problems of MAWPS
(MultiArith, SingleOp; {trained} to train on, {problems} to test); [...] is a 95 % bootstrap interval clustered by
problem.

    {command}

Made on {made}.
"""


def command_of(options: argparse.Namespace) -> str:
    """The command that makes the runs and the page."""
    size = [f"--{name} {getattr(options, name)}" for name in ("device", "rows", "steps", "every", "trained", "workers")]
    return " ".join(["python benchmarks/mawps.py --mawps FOLDER", *size])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mawps", type=Path, help="folder of the problems")
    parser.add_argument("--model", default=MODEL, help="hub id or folder")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5, help="steps between two checkpoints, each evaluated")
    parser.add_argument("--rows", type=int, default=128, help="completions a step")
    parser.add_argument("--trained", type=int, default=96, help="problems; few, so that HAPO's history acts")
    parser.add_argument("--problems", type=int, default=HELD_OUT, help="of an evaluation")
    parser.add_argument("--workers", type=int, default=8, help="runs at once")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where the runs are stored")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "mawps.md")
    parser.add_argument("--table", action="store_true", help="train nothing")
    options = parser.parse_args()
    cells = [
        Cell("mawps", method, seed, setting, change) for seed in options.seeds for method, setting, change in KINDS
    ]
    if not options.table:
        problems(options.mawps, options.runs / "mawps" / "data", options.trained)
        train_all(cells, options.runs, lambda _: overrides(options), options.workers, None)
        evaluate_steps([cell for cell in cells if cell.done(options.runs)], options)
    done = [cell for cell in cells if cell.done(options.runs)]
    if done:
        ways = {cell: way_of(cell, options.runs) for cell in done}
        options.out.write_text(page(ways, options))
        draw(ways, options.runs, options.out.with_suffix(".png"))
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
