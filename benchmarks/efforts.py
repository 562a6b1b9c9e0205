"""What the reasoner that reads efforts does at each, and what TOPS and RL at low effort make of it.

    python benchmarks/efforts.py                 # about seven minutes of one core
    python benchmarks/efforts.py --table         # trains nothing: page and picture from the runs that are there

TOPS is `concise-rl pipeline recipe=tops`, three seeds; its control tunes on a random right answer of the same store,
with the plain prompt too; TOPS-DPO goes on from TOPS with its pairs. CRISP draws the plain prompt to the medium level.
RL is `method=effort`, one seed. What is there is not run again.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.cells import commit, processor, run_command
from benchmarks.leaderboard import with_interval
from benchmarks.long2short import HEADER, asked, cost, row
from concise_rl.reporting.run_log import read_summary
from concise_rl.reporting.summary import markdown_table

MODEL = ("model=tiny_efforts", "data=running_total")
MODELS = {"start": "", "TOPS": "tops-0/tops", "RL": "effort-0"}
"""Whose levels are shown, and the run that made them."""

REFRESH = {"crisp": 50, "crisp_fixed": 0}
"""CRISP's runs, and after how many steps its teacher is a new copy; 0: never."""

CRISP = ("method=grpo", "distill=crisp", r"distill.instruction='{question}\n\n{reasoning effort: efficient}'")


def make(folder: Path, seeds: list[int]) -> None:
    """All runs that are not there yet, and each model's evaluation at the levels."""
    for seed in seeds:
        made = folder / f"tops-{seed}"
        run_command("pipeline", "recipe=tops", f"dir={made}", f"seed={seed}")
        rows, run = made / "random.jsonl", made / "random"
        if not (run / "summary.json").exists():
            run_command(
                "select",
                "selector=random_right",
                "prompt=plain",
                f"stores={made}/tag.jsonl",
                f"out={rows}",
                f"seed={seed}",
            )
            rates = ("tuning.learning_rate=1e-4", "tuning.num_train_epochs=3")
            run_command("tune", *MODEL, f"rows={rows}", f"run.dir={run}", f"seed={seed}", *rates, "overwrite=true")
        again, pairs, run = made / "again.jsonl", made / "pairs.jsonl", made / "dpo"
        if not (run / "summary.json").exists():
            start = f"model.path={made}/tops/model"
            run_command("sample", *MODEL, start, f"store={again}", "evaluation.samples=8", f"evaluation.seed={seed}")
            run_command("select", "selector=tops_dpo", f"stores={again}", f"out={pairs}")
            rates = (f"seed={seed}", "tuning.learning_rate=3e-5", "overwrite=true")
            run_command("tune", "recipe=dpo", *MODEL, start, f"rows={pairs}", f"run.dir={run}", *rates)
        for stem, refresh in REFRESH.items():
            run = folder / f"{stem}-{seed}"
            if not (run / "summary.json").exists():
                copies = (f"distill.refresh={refresh}", f"seed={seed}", f"run.dir={run}", "overwrite=true")
                run_command("train", *MODEL, *CRISP, *copies)
    if not (folder / "effort-0" / "summary.json").exists():
        run_command(
            "train", "method=effort", *MODEL, "shaper.effort.ub=10", f"run.dir={folder}/effort-0", "overwrite=true"
        )
    for name, stem in MODELS.items():
        path = (f"model.path={folder}/{stem}/model",) if stem else ()
        levels = "sweep.efforts=[low,medium,high]"
        run_command("eval", MODEL[0], *path, "benchmark=running_total", levels, f'out="{folder}/levels/{name}"')
    run_command("compare", *(f"{folder}/levels/{name}" for name in MODELS), "--out", str(folder / "compare.html"))


def whole(run: Path) -> tuple[int, int]:
    """Tokens sampled and trained on by a run on the tag model's answers, with those that made the tag model."""
    (sampled, trained), (before, taught) = cost(run), cost(run.parent / "tag")
    return sampled + before, trained + taught


def with_pairs(run: Path) -> tuple[int, int]:
    """What TOPS took, and the DPO after it."""
    (sampled, trained), (again, taught) = whole(run), cost(run.parent / "dpo")
    return sampled + again, trained + taught


def rollouts(run: Path) -> tuple[int, int]:
    """CRISP learns from every token that it samples."""
    sampled = cost(run)[0]
    return sampled, sampled


def at_levels(folder: Path) -> list[list[str]]:
    """A line a model, a column a level."""
    lines = []
    for name in MODELS:
        summary = read_summary(folder / "levels" / name / "running_total")
        points = summary["effort_curve"]["points"]
        cells = (
            f"{with_interval(p, 'accuracy', '.1f', 100)} at {with_interval(p, 'mean_tokens', '.1f')}" for p in points
        )
        lines.append([name, *cells])
    return lines


def page(folder: Path, seeds: list[int]) -> str:
    """The Markdown of docs/results/efforts.md."""
    tops, random = ([folder / f"tops-{seed}" / stem for seed in seeds] for stem in ("tops", "random"))
    copied, fixed = ([folder / f"{stem}-{seed}" for seed in seeds] for stem in REFRESH)
    rows = [
        row("TOPS: least effort that is right, SFT", tops, whole),
        row("TOPS, then DPO on its pairs", tops, with_pairs, lambda run: run.parent / "dpo" / "evaluation-after.jsonl"),
        row("random right, SFT", random, whole),
        row("CRISP: the plain prompt drawn to medium", copied, rollouts),
        row("CRISP, its teacher never copied", fixed, rollouts),
    ]
    return (
        "# The reasoner that reads efforts\n\n"
        "`model=tiny_efforts` on `running_total`, 512 test problems, temperature 1; [...] is the 95 % interval over\n"
        "problems. Accuracy in %, at so many tokens, by the level that is asked for; `high` adds no words:\n\n"
        + markdown_table([["", "low", "medium", "high"], *at_levels(folder)])
        + "\n![accuracy against tokens at low, medium and high effort](efforts.svg)\n\n"
        "TOPS and RL are seed 0. RL is `method=effort shaper.effort.ub=10`, 120 steps of 16 prompts x 8 completions,\n"
        "half of the prompts asked for low effort. TOPS, its pairs, its control (a random right answer of the same\n"
        "store) and CRISP (120 steps, the teacher reads the words for medium) at plain prompts; what was sampled and\n"
        "trained on counts all stages, the tag model's too:\n\n"
        + markdown_table([HEADER, *rows])
        + f"\n`python benchmarks/efforts.py`, {processor()}, two-core virtual machine,\n"
        f"{time.strftime('%Y-%m-%d')}, commit {commit()}.\n"
    )


def main() -> None:
    options = asked(__doc__, "efforts")
    if not options.table:
        make(options.runs, options.seeds)
    options.out.write_text(page(options.runs, options.seeds))
    shutil.copyfile(options.runs / "compare-figures" / "effort.svg", options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
