"""Do the test beds hold what they promise? Their start, and forced behaviour against the law (docs/testbeds.md).

    python benchmarks/testbeds.py                       # both beds: about eight minutes of one core
    python benchmarks/testbeds.py --beds which_sum      # one of them
    python benchmarks/testbeds.py --folders running_total=DIR      # another checkpoint, with its law.json
    python benchmarks/testbeds.py --store docs/results/cells/forced.json      # the forced cells, for criteria.py

Forced: every completion is made to follow a composition, or to check at most k options; its sums, and their errors, are
the reasoner's own. On test problems, one sample each (M: up to 1,024 a level, S: 256), against a law that was
measured on others.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.cells import commit
from concise_rl.assets import REASONERS
from concise_rl.data import Prompt
from concise_rl.testbeds import WhichSum
from concise_rl.testbeds.beds import BEDS, checking_frontier
from concise_rl.testbeds.forcing import Forcer, force_checks, force_composition
from concise_rl.testbeds.frontier import PRICES, Frontier
from concise_rl.testbeds.laws import MergingLaw, load_checkpoint
from concise_rl.testbeds.running_total import measured_problems
from concise_rl.testbeds.which_sum import RANK_LAW, completion, rank, tokens
from concise_rl.verifiers import Exact

CHECKED = 1024
"""Test problems of bed S."""
WITHIN = 0.03
"""A forced cell holds its law when accuracy lies this near."""


@dataclass(frozen=True)
class Forced:
    """A forced cell: accuracy and tokens by the law and as forced, and the standard error of their difference."""

    name: str
    law: tuple[float, float]
    forced: tuple[float, float]
    error: float

    @property
    def distance(self) -> float:
        return abs(self.law[0] - self.forced[0])


def start(folder: Path) -> list[str]:
    """The reasoner before training, level by level, and what its warm-up took."""
    record = json.loads((folder / "warmup.json").read_text())
    metrics, stages, seconds = record["metrics"], record["config"], record["train_seconds"]
    lines = [
        f"Start: {metrics['accuracy']:.1%} right at {metrics['mean_tokens']:.1f} tokens; every step written takes "
        f"{metrics['mean_oracle_tokens']:.1f}. {record['parameters']} parameters, last stage "
        f"{stages['steps']} steps in {seconds:.0f} s.",
        "",
        "| level | accuracy, % | tokens |",
        "|--:|--:|--:|",
    ]
    return lines + [
        f"| {level} | {100 * found['accuracy']:.1f} | {found['mean_tokens']:.1f} |"
        for level, found in metrics["by_difficulty"].items()
    ]


def corners(frontier: Frontier) -> list[str]:
    """The corners of the frontier, and what is best at each price."""
    lines = ["| policy by level | accuracy, % | tokens | best at price |", "|---|--:|--:|---|"]
    best = {price: frontier.best(price) for price in PRICES}
    for point in frontier.mixtures:
        prices = ", ".join(f"{price:g}" for price, chosen in best.items() if chosen == point)
        policy = " ".join(str(part).replace(" ", "") for part in point.policy)
        lines.append(f"| {policy} | {100 * point.accuracy:.1f} | {point.tokens:.1f} | {prices} |")
    return lines


def forced_table(found: Sequence[Forced]) -> list[str]:
    """Law against forced behaviour, cell by cell."""
    near = sum(cell.distance <= WITHIN for cell in found)
    explained = sum(cell.distance <= max(WITHIN, 1.96 * cell.error) for cell in found)
    lines = [
        "| forced | accuracy by the law, % | forced, % | ± of the difference | tokens by the law | forced |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {c.name} | {100 * c.law[0]:.1f} | {100 * c.forced[0]:.1f} | {196 * c.error:.1f} | {c.law[1]:.1f} "
            f"| {c.forced[1]:.1f} |"
            for c in found
        ),
    ]
    verdict = (
        f"{near} of {len(found)} cells lie within {100 * WITHIN:.0f} points of the law, {explained} within those or"
    )
    return [*lines, "", f"{verdict} the 95 % sampling error (±)."]


def by_level(prompts: Sequence[Prompt]) -> dict[int, list[Prompt]]:
    levels: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        levels.setdefault(prompt.columns["difficulty"], []).append(prompt)
    return levels


def reached(prompts: Sequence[Prompt], completions: Sequence[str]) -> tuple[float, float]:
    """Accuracy and mean tokens, EOS included."""
    verifier = Exact()
    right = [verifier(text, prompt.reference).correct for prompt, text in zip(prompts, completions, strict=True)]
    return fmean(right), fmean(len(text.replace("<think>", "T").replace("</think>", "T")) + 1 for text in completions)


def merging_cells(forcer: Forcer, law: MergingLaw, prompts: Sequence[Prompt]) -> Iterator[Forced]:
    """At each level: all totals, pairs, threes, one jump, and the best at each price."""
    levels = by_level(prompts)
    best = [dict(zip(law.levels, law.frontier().best(price).policy, strict=True)) for price in PRICES]
    for n, own in levels.items():
        asked = [(1,) * n, (2,) * (n // 2), (3,) * (n // 3) + (n % 3,) * (n % 3 > 0), (n,), *(b[n] for b in best)]
        questions = [prompt.messages[0]["content"] for prompt in own]
        for composition in dict.fromkeys(asked):
            point = law.point(composition)
            accuracy, tokens = reached(own, force_composition(forcer, questions, composition))
            own_law = law.levels[n].accuracy_PC[:, law.levels[n].compositions.index(composition)]
            error = (accuracy * (1 - accuracy) / len(own) + own_law.var() / len(own_law)) ** 0.5
            name = f"n={n}: {'+'.join(map(str, composition))}"
            yield Forced(name, (point.accuracy, point.tokens), (accuracy, tokens), error)


def checking_cells(forcer: Forcer, prompts: Sequence[Prompt]) -> Iterator[Forced]:
    """At each level, at most k checks, k = 0..N-1."""
    for n, own in by_level(prompts).items():
        questions = [prompt.messages[0]["content"] for prompt in own]
        for k in range(n):
            law = fmean(rank(q) <= k for q in questions), fmean(tokens(completion(q, k)) for q in questions)
            forced = reached(own, force_checks(forcer, questions, k))
            error = (forced[0] * (1 - forced[0]) / len(own)) ** 0.5  # of single samples; the law is exact here
            yield Forced(f"N={n}: {k} checks", law, forced, error)


def page(bed: str, folder: Path) -> tuple[list[str], list[Forced]]:
    """All tables of a bed, and its forced cells."""
    model, tokenizer = load_checkpoint(folder)
    prompts = measured_problems("test") if bed == "running_total" else WhichSum(test_size=CHECKED).load("test")
    forcer = Forcer(model, tokenizer)
    if bed == "running_total":
        law = MergingLaw.load(folder / "law.json")
        frontier, cells = law.frontier(), list(merging_cells(forcer, law, prompts))
        low, high = law.interval(lambda f: f.accuracy_at(10.0))
        note = f"At 10 tokens {frontier.accuracy_at(10):.1%}, 95 % interval [{low:.1%}, {high:.1%}] over problems."
    else:
        frontier = checking_frontier([prompt.messages[0]["content"] for prompt in prompts])
        cells, note = list(checking_cells(forcer, prompts)), f"Exact on these problems; ranks by {dict(RANK_LAW)}."
    lines = [f"## {bed}", "", *start(folder), "", *corners(frontier), "", note, "", *forced_table(cells), ""]
    return lines, cells


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--beds", nargs="+", choices=list(BEDS), default=list(BEDS))
    parser.add_argument(
        "--folders", nargs="*", default=[], metavar="BED=DIR", help="checkpoints other than the shipped"
    )
    parser.add_argument("--store", type=Path, help="a JSON file for the forced cells")
    options = parser.parse_args()
    folders = {bed: REASONERS[BEDS[bed].model] for bed in BEDS}
    folders |= {bed: Path(folder) for bed, _, folder in (item.partition("=") for item in options.folders)}
    found = {}
    for bed in options.beds:
        lines, cells = page(bed, folders[bed])
        found[bed] = [asdict(cell) for cell in cells]
        print("\n".join(lines), flush=True)
    if options.store:
        options.store.write_text(json.dumps({"commit": commit(), "date": time.strftime("%Y-%m-%d")} | found) + "\n")


if __name__ == "__main__":
    main()
