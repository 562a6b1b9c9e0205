"""Do the test beds tell methods apart? Each criterion with its figure, on M and on S: docs/results/criteria.md.

    python benchmarks/testbeds.py --store docs/results/cells/forced.json      # forced behaviour, eight minutes
    python benchmarks/criteria.py                                             # from that and the stored cells

A criterion that is missed stays, with how far it is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import methods, stored
from benchmarks.board import TITLES
from benchmarks.cells import ROOT
from benchmarks.findings import difference, seeds_of, value
from benchmarks.leaderboard import Row
from benchmarks.testbeds import WITHIN, Forced
from concise_rl.errors import UserError
from concise_rl.files import replace_text
from concise_rl.methods.registry import method_names
from concise_rl.reporting.plots import entry_name
from concise_rl.reporting.summary import markdown_table
from concise_rl.testbeds.beds import merging_law
from concise_rl.testbeds.frontier import PRICES, checking_points
from concise_rl.testbeds.which_sum import RANK_LAW

PROTOTYPE = {
    "running_total": {
        "grpo": (84.2, 12.2), "canon_length alpha=0.9": (83.6, 11.4), "cosine": (80.5, 10.4), "hapo": (71.9, 8.7),
        "hapo weight=0.25": (78.6, 10.1), "kimi": (62.7, 7.0), "kimi weight=0.25": (76.4, 9.3), "pear": (72.4, 10.3),
        "before training": (68.9, 10.3),
    },
    "which_sum": {
        "grpo": (97.7, 24.8), "canon_length alpha=0.9": (95.9, 19.9), "hapo": (93.0, 17.4), "kimi": (76.2, 4.3),
        "cosine": (76.6, 4.2), "pear": (76.6, 4.2), "before training": (84.6, 18.5),
    },
}  # fmt: skip
"""Accuracy in percent and tokens of the prototypes of these beds, whose reasoners were others."""


REASONS = {
    "running_total": "The reasoner had another warm-up, with a third stage, and a start 9 points higher: all methods "
    "end higher by 4 to 10 points, with tokens within 1 and in the prototype's order, but for GRPO and CANON, which "
    "are even.",
    "which_sum": "The reasoner's last two stages were added, so its checks are right more often. HAPO is the one that "
    "moves: longer by 3.5 tokens.",
}
"""Why the figures differ from the prototype's."""


@dataclass(frozen=True)
class Criterion:
    """What is asked, what was found on each bed, and whether it holds; None: not to be said yet."""

    asked: str
    found: Mapping[str, tuple[str, bool | None]]


def criteria(
    forced: Mapping[str, Sequence[Forced]], rows: Mapping[str, Sequence[Row]], records: Any
) -> list[Criterion]:
    """All of them, on the beds that have rows."""
    beds = list(rows)
    return [
        Criterion("accuracy rises with forced thinking", {bed: rises(forced[bed]) for bed in beds}),
        Criterion("its returns diminish", {bed: diminishes(bed) for bed in beds}),
        Criterion("none to all on the hard half: 20 points or more", {bed: hard_half(forced[bed]) for bed in beds}),
        Criterion(
            "law within 3 points of forced behaviour in 9 of 10 cells", {bed: holds(forced[bed]) for bed in beds}
        ),
        Criterion("an RL cell takes 3 minutes of one core at most", {bed: seconds(rows[bed]) for bed in beds}),
        Criterion("accuracy spreads over methods by 15 points or more", {bed: spread(rows[bed]) for bed in beds}),
        Criterion("and over seeds by 2.5 at most (half the range)", {bed: seed_spread(rows[bed]) for bed in beds}),
        Criterion(
            "six pairs of neighbours or more in the ranking are separated at 95 %",
            {bed: separated(bed, rows[bed], records) for bed in beds},
        ),
        Criterion(
            "no entry lies above the frontier by more than its interval", {bed: above(rows[bed]) for bed in beds}
        ),
        Criterion(
            "forcing the best composition gives the frontier's point",
            {bed: best_forced(bed, forced[bed]) for bed in beds},
        ),
    ]


def by_level(cells: Sequence[Forced]) -> dict[str, list[Forced]]:
    """The forced cells of each level, fewest tokens first."""
    levels: dict[str, list[Forced]] = {}
    for cell in cells:
        levels.setdefault(cell.name.split(":")[0], []).append(cell)
    return {level: sorted(own, key=lambda cell: cell.forced[1]) for level, own in levels.items()}


def rises(cells: Sequence[Forced]) -> tuple[str, bool]:
    """From each forced cell to the next longer one of its level, within the sampling error of both."""
    steps = [pair for own in by_level(cells).values() for pair in itertools.pairwise(own)]
    falls = [b.name for a, b in steps if b.forced[0] < a.forced[0] - 1.96 * (a.error**2 + b.error**2) ** 0.5]
    return f"{len(steps) - len(falls)} of {len(steps)} steps" + (
        f"; falls at {', '.join(falls)}" if falls else ""
    ), not falls


def diminishes(bed: str) -> tuple[str, bool]:
    """Gains of the best policy with one more step allowed, by the law, averaged over the hard half."""
    if bed == "running_total":
        levels = [level for n, level in merging_law().levels.items() if n >= 6]
        most = max(level.n for level in levels)
        best = [
            statistics.fmean(max(p.accuracy for p in level.points() if len(p.policy) <= k) for level in levels)
            for k in range(1, most + 1)
        ]
    else:
        laws = [RANK_LAW[n] for n in sorted(RANK_LAW)[2:]]
        best = [
            statistics.fmean(max(p.accuracy for p in checking_points(law, 1.0) if p.policy <= k) for law in laws)
            for k in range(max(map(len, laws)))
        ]
    gains = [100 * (b - a) for a, b in itertools.pairwise(best)]
    return "points a step: " + ", ".join(f"{gain:.1f}" for gain in gains), all(
        a >= b - 0.05 for a, b in itertools.pairwise(gains)
    )


def hard_half(cells: Sequence[Forced]) -> tuple[str, bool]:
    """The most accurate forced cell of a level against its cheapest one."""
    levels = list(by_level(cells).values())
    moves = [100 * (max(c.forced[0] for c in own) - own[0].forced[0]) for own in levels[len(levels) // 2 :]]
    return f"{statistics.fmean(moves):.1f} points", statistics.fmean(moves) >= 20


def holds(cells: Sequence[Forced]) -> tuple[str, bool]:
    near = sum(cell.distance <= WITHIN for cell in cells)
    far = [f"{cell.name} by {100 * cell.distance:.1f}" for cell in cells if cell.distance > WITHIN]
    return f"{near} of {len(cells)}" + (f"; {', '.join(far)}" if far else ""), near >= 0.9 * len(cells)


def seconds(rows: Sequence[Row]) -> tuple[str, bool | None]:
    """By the clock, so that a busy machine can fulfil the criterion but not break it."""
    own = [row["training_seconds"] for row in rows]
    return f"training alone: {min(own):.0f} to {max(own):.0f} s by the clock", True if max(own) <= 180 else None


def spread(rows: Sequence[Row]) -> tuple[str, bool]:
    own = [100 * row["accuracy"] for row in rows]
    return f"{max(own) - min(own):.1f} points over {len(own)} entries", max(own) - min(own) >= 15


def seed_spread(rows: Sequence[Row]) -> tuple[str, bool | None]:
    several = {entry_name(row): row["accuracy_seeds"] for row in rows if row["seeds"] > 1}
    if not several:
        return "one seed each", None
    halves = {name: 50 * (max(own) - min(own)) for name, own in several.items()}
    wide = [f"{name} ± {half:.1f}" for name, half in halves.items() if half > 2.5]
    return f"± {max(halves.values()):.1f} at most over {len(halves)} entries" + (
        f"; {', '.join(wide)}" if wide else ""
    ), not wide


def separated(bed: str, rows: Sequence[Row], records: Any) -> tuple[str, bool]:
    """Neighbours in the ranking at each price whose paired difference of value leaves out 0."""
    counts = {}
    for price in PRICES:
        order = sorted(rows, key=lambda row: row["against"]["regret"][f"{price:g}"]["regret"])
        own = [
            [value(r, price) for r in seeds_of(records, bed, (row["method"], row["setting"])).values()] for row in order
        ]
        gaps = (difference(a, b) for a, b in itertools.pairwise(own))
        counts[price] = sum(mean > half for mean, half in gaps)
    text = ", ".join(f"{count} at {price:g}" for price, count in counts.items())
    return f"{text}, of {len(rows) - 1}", min(counts.values()) >= 6


def above(rows: Sequence[Row]) -> tuple[str, bool]:
    over = [entry_name(row) for row in rows if (row["against"]["below_interval"] or [0, 0])[1] < 0]
    return ", ".join(over) if over else f"none of {len(rows)}", not over


def best_forced(bed: str, cells: Sequence[Forced]) -> tuple[str, bool]:
    """The cells that are best at a price, against their law."""
    if bed == "running_total":
        law = merging_law()
        policies = (zip(law.levels, law.frontier().best(price).policy, strict=True) for price in PRICES)
        names = {f"n={n}: {'+'.join(map(str, own))}" for policy in policies for n, own in policy}
    else:
        names = {cell.name for cell in cells}
    own = [cell for cell in cells if cell.name in names]
    most = max(own, key=lambda cell: cell.distance)
    return f"within {100 * most.distance:.1f} points in {len(own)} cells", most.distance <= WITHIN


def prototype_table(bed: str, rows: Sequence[Row]) -> list[str]:
    """These runs beside those of the prototype: what moved, by how much."""
    found = {entry_name(row): row for row in rows} | {"before training": rows[0]["before"]}
    table = [["", "prototype", "here", "accuracy, points", "tokens", "within 3 points and 1 token"]]
    for name, (accuracy, tokens) in PROTOTYPE[bed].items():
        if name in found:
            here = 100 * found[name]["accuracy"], found[name]["mean_tokens"]
            moved = here[0] - accuracy, here[1] - tokens
            near = "yes" if abs(moved[0]) <= 3 and abs(moved[1]) <= 1 else "no"
            points = f"{accuracy:.1f} @ {tokens:.1f}", f"{here[0]:.1f} @ {here[1]:.1f}"
            table.append([name, *points, f"{moved[0]:+.1f}", f"{moved[1]:+.1f}", near])
    return markdown_table(table).splitlines()


def page(found: Sequence[Criterion], rows: Mapping[str, Sequence[Row]], origin: str) -> str:
    words = {True: "yes", False: "**no**", None: "open"}
    heads = ["asked", *(cell for bed in rows for cell in (TITLES[bed].split(":")[0], "holds"))]
    body = [[c.asked, *(cell for bed in rows for cell in (c.found[bed][0], words[c.found[bed][1]]))] for c in found]
    lines = ["# Do the test beds tell methods apart?", "", f"Made by `python benchmarks/criteria.py` {origin}.", ""]
    lines += markdown_table([heads, *body], text_columns=len(heads)).splitlines()
    for bed, own in rows.items():
        lines += ["", f"## {TITLES[bed]}: against the prototype", "", *prototype_table(bed, own), "", REASONS[bed]]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="folder of criteria.md and cells/")
    options = parser.parse_args()
    cells = options.out / "cells"
    records = stored.load(cells)
    if not records or not (cells / "forced.json").exists():
        raise UserError(f"{cells} lacks cells or forced.json: see the head of benchmarks/criteria.py")
    stored_forced = json.loads((cells / "forced.json").read_text())
    forced = {
        bed: [Forced(c["name"], tuple(c["law"]), tuple(c["forced"]), c["error"]) for c in own]
        for bed, own in stored_forced.items()
        if bed in TITLES
    }
    rows = {
        bed: own
        for bed in TITLES
        if (own := methods.rows_of(methods.competing(bed, method_names(), (0, 1, 2)), records))
    }
    origin = f"from the stored cells; forced behaviour of {stored_forced['date']}, commit {stored_forced['commit']}"
    replace_text(options.out / "criteria.md", page(criteria(forced, rows, records), rows, origin))
    print(f"written: {options.out / 'criteria.md'}")


if __name__ == "__main__":
    main()
