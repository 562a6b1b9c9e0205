"""Do the test beds hold what they promise? Their start, and forced behaviour against the law (docs/testbeds.md).

    python benchmarks/testbeds.py                       # both beds: about four minutes of one core
    python benchmarks/testbeds.py --beds which_sum      # one of them
    python benchmarks/testbeds.py --folders running_total=DIR      # another checkpoint, with its law.json

Forced: every completion is made to follow a composition, or to check at most k options; its sums, and their errors, are
the reasoner's own. On 1,024 test problems, one sample each, against a law that was measured on others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent.parent))

from concise_rl.assets import REASONERS
from concise_rl.data import Prompt
from concise_rl.testbeds import TESTBEDS
from concise_rl.testbeds.beds import BEDS, checking_frontier
from concise_rl.testbeds.forcing import Forcer, force_checks, force_composition
from concise_rl.testbeds.frontier import PRICES, Frontier
from concise_rl.testbeds.laws import MergingLaw, load_checkpoint
from concise_rl.testbeds.which_sum import RANK_LAW, completion, rank, tokens
from concise_rl.verifiers import Exact

PROBLEMS = 1024
WITHIN = 0.03
"""A forced cell holds its law when accuracy lies this near."""

Forced = tuple[str, float, float, float, float]
"""What was forced; accuracy by the law and as forced; tokens by the law and as forced."""


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
    near = sum(abs(law - forced) <= WITHIN for _, law, forced, _, _ in found)
    lines = [
        "| forced | accuracy by the law, % | forced, % | tokens by the law | forced |",
        "|---|--:|--:|--:|--:|",
        *(f"| {name} | {100 * a:.1f} | {100 * b:.1f} | {s:.1f} | {t:.1f} |" for name, a, b, s, t in found),
    ]
    return [*lines, "", f"{near} of {len(found)} cells lie within {100 * WITHIN:.0f} points of the law."]


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
            yield f"n={n}: {'+'.join(map(str, composition))}", point.accuracy, accuracy, point.tokens, tokens


def checking_cells(forcer: Forcer, prompts: Sequence[Prompt]) -> Iterator[Forced]:
    """At each level, at most k checks, k = 0..N-1."""
    for n, own in by_level(prompts).items():
        questions = [prompt.messages[0]["content"] for prompt in own]
        for k in range(n):
            law = fmean(rank(q) <= k for q in questions), fmean(tokens(completion(q, k)) for q in questions)
            forced = reached(own, force_checks(forcer, questions, k))
            yield f"N={n}: {k} checks", law[0], forced[0], law[1], forced[1]


def page(bed: str, folder: Path) -> list[str]:
    """All tables of a bed."""
    model, tokenizer = load_checkpoint(folder)
    prompts = TESTBEDS[bed](test_size=PROBLEMS).load("test")
    forcer = Forcer(model, tokenizer)
    if bed == "running_total":
        law = MergingLaw.load(folder / "law.json")
        frontier, cells = law.frontier(), list(merging_cells(forcer, law, prompts))
        low, high = law.interval(lambda f: f.accuracy_at(10.0))
        note = f"At 10 tokens {frontier.accuracy_at(10):.1%}, 95 % interval [{low:.1%}, {high:.1%}] over problems."
    else:
        frontier = checking_frontier([prompt.messages[0]["content"] for prompt in prompts])
        cells, note = list(checking_cells(forcer, prompts)), f"Exact on these problems; ranks by {dict(RANK_LAW)}."
    return [f"## {bed}", "", *start(folder), "", *corners(frontier), "", note, "", *forced_table(cells), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--beds", nargs="+", choices=list(BEDS), default=list(BEDS))
    parser.add_argument(
        "--folders", nargs="*", default=[], metavar="BED=DIR", help="checkpoints other than the shipped"
    )
    options = parser.parse_args()
    folders = {bed: REASONERS[BEDS[bed].model] for bed in BEDS}
    folders |= {bed: Path(folder) for bed, _, folder in (item.partition("=") for item in options.folders)}
    for bed in options.beds:
        print("\n".join(page(bed, folders[bed])), flush=True)


if __name__ == "__main__":
    main()
