"""The numbers behind docs/results/findings.md: pairs of methods held against each other, and thresholds against runs.

    python benchmarks/findings.py                       # from docs/results/cells, a minute; writes below the marker

What stands above the marker in the page is written by hand and kept.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import stored
from benchmarks.cells import ROOT, Cell
from benchmarks.stored import BEFORE, Record
from benchmarks.thresholds import LONG_TOKENS, SHORT_TOKENS, missing_needs, scaled_and_not, threshold
from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.files import replace_text
from concise_rl.methods.recipes import load_method
from concise_rl.methods.registry import method_names
from concise_rl.reporting.plots import BLUE, GREY, ORANGE, name_points
from concise_rl.reporting.summary import markdown_table
from concise_rl.testbeds import which_sum
from concise_rl.testbeds.frontier import PRICES
from concise_rl.testbeds.which_sum import RANK_LAW

MARKER = "<!-- numbers -->"
M, S = "running_total", "which_sum"
Records = Mapping[Cell, Record]
Entry = tuple[str, str]
"""Method and setting; `BEFORE` is a method too."""

STOPPED = 0.3
"""Checks a completion on bed S's hard half, below which a policy counts as one that has stopped checking."""


@dataclass(frozen=True)
class Pair:
    """One entry against another on the same bed."""

    bed: str
    one: Entry
    other: Entry

    @property
    def text(self) -> str:
        return f"{'M' if self.bed == M else 'S'}: {_name(self.one)} against {_name(self.other)}"


CANON = ("canon_length", "alpha=0.9")
QUESTIONS: dict[str, list[Pair]] = {
    "Does GRPO think more where it pays?": [Pair(bed, ("grpo", ""), (BEFORE, "")) for bed in (M, S)],
    "Dr.GRPO against GRPO": [Pair(bed, ("dr_grpo", ""), ("grpo", "")) for bed in (M, S)],
    "DAPO against GRPO": [Pair(bed, ("dapo", ""), ("grpo", "")) for bed in (M, S)],
    "HAPO, PEAR, CANON": [
        Pair(bed, one, other)
        for bed in (M, S)
        for one, other in (
            (("hapo", ""), ("pear", "")),
            (CANON, ("hapo", "")),
            (CANON, ("pear", "")),
            (CANON, ("grpo", "")),
        )
    ],
    "Does the coefficient act?": [
        *(Pair(bed, ("kimi", "weight=0.25"), ("kimi", "")) for bed in (M, S)),
        Pair(M, ("hapo", "weight=0.25"), ("hapo", "")),
        Pair(S, ("kimi", "weight=0.25_unscaled"), ("kimi", "weight=0.25")),
        Pair(S, ("kimi", "weight=1_unscaled"), ("kimi", "weight=0.25_unscaled")),
    ],
    "A history against the group, where groups are small": [
        *(Pair(M, ("hapo", setting), ("kimi", setting)) for setting in ("group=2", "group=4", "")),
    ],
    "Targets that adapt, against a fixed one": [
        Pair(bed, (name, ""), ("laser", "")) for bed in (M, S) for name in ("laser_d", "shorter_better", "alp")
    ],
    "Fewer rows teach, but chosen ones: GFPO against GRPO": [Pair(bed, ("gfpo", ""), ("grpo", "")) for bed in (M, S)],
}


def seeds_of(records: Records, bed: str, entry: Entry) -> dict[int, Record]:
    return {cell.seed: r for cell, r in records.items() if (cell.task, cell.method, cell.setting) == (bed, *entry)}


def difference(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> tuple[float, float]:
    """Mean of the paired difference over problems, seeds averaged, and half its 95 % interval."""
    gaps_P = np.mean(one, axis=0) - np.mean(other, axis=0)
    return float(gaps_P.mean()), 1.96 * float(gaps_P.std(ddof=1) / len(gaps_P) ** 0.5)


def value(record: Record, price: float) -> np.ndarray:
    """What each problem's completion is worth, in points."""
    right_P = np.array([character == "1" for character in record.right], dtype=float)
    return 100 * (right_P - price * np.array(record.tokens))


def pair_row(records: Records, pair: Pair) -> list[str] | None:
    """Changes of accuracy, tokens and value from the other entry to the one, over the seeds that both have."""
    one, other = (seeds_of(records, pair.bed, entry) for entry in (pair.one, pair.other))
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None

    def change(of: object) -> str:
        mean, half = difference([of(one[s]) for s in seeds], [of(other[s]) for s in seeds])  # type: ignore[operator]
        return f"{mean:+.1f} ± {half:.1f}" + (" *" if abs(mean) > half else "")

    middle = sorted(PRICES)[len(PRICES) // 2]
    signs = [float(np.mean(value(one[s], middle) - value(other[s], middle))) for s in seeds]
    return [
        pair.text,
        str(len(seeds)),
        change(lambda record: value(record, 0.0)),
        change(lambda record: np.array(record.tokens, dtype=float)),
        *(change(lambda record, price=price: value(record, price)) for price in PRICES),
        f"{sum(sign > 0 for sign in signs)} of {len(signs)}",
    ]


def _name(entry: Entry) -> str:
    return " ".join(filter(None, entry)).replace("_unscaled", " unscaled").replace("group=", "G=")


def questions(records: Records) -> list[str]:
    """A table a question; pairs without a common seed are named as missing."""
    heads = [
        "",
        "seeds",
        "accuracy, points",
        "tokens",
        *(f"value at {price:g}, points" for price in PRICES),
        "better in",
    ]
    lines = [
        "From the stored cells, paired by problem, seeds averaged: change ± half its 95 % interval, `*` where that",
        "leaves out 0. Value is accuracy - price x tokens, so a gain of value is a fall of regret. `better in`: of the",
        "seeds that both have, those in which the value at .01 is higher. An interval is over problems; what another",
        "seed would have given, only the seeds say.",
        "",
    ]
    for question, pairs in QUESTIONS.items():
        rows = [(pair, pair_row(records, pair)) for pair in pairs]
        found = [row for _, row in rows if row]
        lines += [f"### {question}", ""]
        lines += [*markdown_table([heads, *found]).splitlines(), ""] if found else []
        missing = [pair.text for pair, row in rows if not row]
        lines += [f"No cells yet: {'; '.join(missing)}.", ""] if missing else []
    return lines


# --- thresholds against runs ------------------------------------------------------------------------------------------


def prices_wrong(name: str) -> bool | None:
    """Whether a method's reward of a wrong answer depends on its length, in a group with one right row, visited thrice.

    None where the method needs what a batch without a model does not have.
    """
    method = load_method(name)
    if missing_needs(method):
        return None
    state = method.init()
    lengths = [SHORT_TOKENS, 7, 10, 13, LONG_TOKENS, 19, 22, 25]
    columns = {need[8:]: [4] for need in method.needs if need.startswith("columns.")}
    reward = torch.zeros(len(lengths))
    for step in range(3):
        batch = RolloutBatch.of(
            prompt_keys=["p"], group_size=8, step=step, lengths=lengths, correct=[place == 2 for place in range(8)],
            limits=[128] * 8, think_lengths=[length - 2 for length in lengths], columns=columns,
        )  # fmt: skip
        result, state = method.apply(batch, state)
        reward = result.reward
    wrong = [float(own) for place, own in enumerate(reward) if place != 2]
    return max(wrong) - min(wrong) > 1e-9


@dataclass(frozen=True)
class Outcome:
    """Where a method's credit turns to the guess, and where its runs on bed S ended."""

    name: str
    threshold: float
    wrong: bool | None
    checks: list[float]
    accuracy: float
    tokens: float
    seeds: int

    @property
    def stopped(self) -> bool:
        return statistics.fmean(self.checks[2:]) < STOPPED


def outcomes(records: Records) -> list[Outcome]:
    """Every entry of bed S that has a threshold, the lowest first."""
    found = []
    for method, setting, fields in entries_with_threshold(records):
        own = list(seeds_of(records, S, (method, setting)).values())
        levels = [[r.behaviour["levels"][str(n)]["checks"] for r in own if r.behaviour] for n in RANK_LAW]
        checks = [statistics.fmean(value for value in level if value is not None) for level in levels]
        right = statistics.fmean(r.right.count("1") / len(r.right) for r in own)
        tokens = statistics.fmean(statistics.fmean(r.tokens) for r in own)
        found.append(
            Outcome(
                _name((method, setting)),
                threshold(method, fields),
                prices_wrong(method),
                checks,
                right,
                tokens,
                len(own),
            )
        )
    return sorted(found, key=lambda own: (own.threshold, own.accuracy))


def entries_with_threshold(records: Records) -> list[tuple[str, str, dict[str, object]]]:
    """Method, setting and the fields of that setting, of all on bed S whose threshold can be had."""
    found = []
    for method in method_names():
        if missing_needs(load_method(method)):
            continue
        settings = {c.setting: c.overrides for c in records if c.task == S and c.method == method}
        for setting, overrides in settings.items():
            pairs = (override.partition("=")[::2] for override in overrides)
            found.append((method, setting, {key: _number(text) for key, text in pairs}))
    return found


def _number(text: str) -> object:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


def foretold(h: float) -> tuple[float, float]:
    """Accuracy and tokens on bed S of a policy that checks as long as a guess is right less often than h."""
    checks = {}
    for n, law in RANK_LAW.items():
        hazards = [law[k] / sum(law[k:]) for k in range(n - 1)]
        checks[n] = next((k for k, hazard in enumerate(hazards) if hazard >= h), n - 1)
    questions = [str(prompt.messages[0]["content"]) for prompt in stored.problems(S)]
    most = [checks[len(which_sum.options(q))] for q in questions]
    right = [which_sum.rank(q) <= k for q, k in zip(questions, most, strict=True)]
    lengths = [which_sum.tokens(which_sum.completion(q, k)) for q, k in zip(questions, most, strict=True)]
    return statistics.fmean(right), statistics.fmean(lengths)


def plot_thresholds(found: Sequence[Outcome], path: Path) -> None:
    """Tokens on bed S against h*: what the threshold foretells as a line, the runs as points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    grid = np.linspace(0.2, 1.0, 401)
    axes.plot(
        grid, [foretold(h)[1] for h in grid], color=GREY, label="checks wherever a guess is right less often than h*"
    )
    for own in found:
        axes.plot(own.threshold, own.tokens, "o", color=ORANGE if own.stopped else BLUE)
    points = {own.name: (own.threshold, own.tokens) for own in found}
    axes.set(xlabel="h*, from the method's own credit, without a model", ylabel="mean tokens of the trained policy")
    axes.set_ylim(0, 1.12 * max(own.tokens for own in found))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.canvas.draw()
    name_points(axes, points)
    figure.savefig(path)


def _point(accuracy: float, tokens: float) -> str:
    return f"{100 * accuracy:.1f} @ {tokens:.1f}"


def threshold_section(records: Records, out: Path) -> list[str]:
    """The coefficient and the threshold; each method's threshold and what its runs on S did."""
    weights = [["weight of Kimi's length reward", "h* scaled by the group", "h* unscaled", "(1 - w/2) / (1 + w/2)"]]
    weights += [[f"{w:g}", *(f"{own:.3f}" for own in rest)] for w, *rest in scaled_and_not()]
    found = outcomes(records)
    plot_thresholds(found, out / "thresholds.png")
    heads = [
        "",
        "h*",
        "prices wrong answers",
        "seeds",
        *(f"checks, N={n}" for n in RANK_LAW),
        "accuracy, % @ tokens",
        "foretold",
    ]
    rows = [
        [
            own.name,
            f"{own.threshold:.2f}",
            {True: "yes", False: "no", None: ""}[own.wrong],
            str(own.seeds),
            *(f"{checks:.1f}" for checks in own.checks),
            _point(own.accuracy, own.tokens),
            _point(*foretold(own.threshold)),
        ]
        for own in found
    ]
    low, high = ([own for own in found if (own.threshold < 0.6) is side] for side in (True, False))
    counted = "; ".join(
        f"{sum(own.stopped for own in group)} of {len(group)} with h* {name} 0.6"
        for group, name in ((low, "below"), (high, "above"))
    )
    wrong = "; ".join(
        f"{sum(own.stopped for own in group)} of {len(group)} {name}"
        for group, name in (
            ([own for own in found if own.wrong], "that price wrong answers by length"),
            ([own for own in found if own.wrong is False], "that do not"),
        )
    )
    return [
        "### The threshold, by the package's own components",
        "",
        *markdown_table(weights).splitlines(),
        "",
        "### The threshold against the runs on bed S",
        "",
        "A guess is right with chance .99, .92, .70, .45 at N = 2, 3, 4, 5. A policy counts as stopped where it checks "
        f"less than {STOPPED:g} times a completion at N = 4 and 5.",
        "",
        *markdown_table([heads, *rows]).splitlines(),
        "",
        f"Stopped: {counted}. Stopped: {wrong}.",
        "",
        "![tokens on S against the threshold](thresholds.png)",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="folder of findings.md and cells/")
    options = parser.parse_args()
    page = options.out / "findings.md"
    written = page.read_text().partition(MARKER)[0] if page.exists() else "# What is learned\n\n"
    records = stored.load(options.out / "cells")
    if not records:
        raise UserError(f"{options.out / 'cells'} holds no cell: python benchmarks/methods.py trains them")
    lines = [f"{written}{MARKER}", "", "## Numbers", "", "Made by `python benchmarks/findings.py`.", ""]
    replace_text(page, "\n".join([*lines, *threshold_section(records, options.out), *questions(records)]))
    print(f"written: {page}")


if __name__ == "__main__":
    main()
