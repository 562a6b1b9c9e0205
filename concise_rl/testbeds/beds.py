"""The beds whose best is known: by name, their frontier, and what a policy does and can do on them.

A prompt of such a bed has the column `testbed`, so that stored completions find their bed again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from concise_rl.assets import REASONERS
from concise_rl.testbeds import running_total, which_sum
from concise_rl.testbeds.frontier import Frontier, Point
from concise_rl.testbeds.laws import MergingLaw

Pair = tuple[str, str]
"""A question and a completion of it."""


@dataclass(frozen=True)
class Bed:
    """A bed and the reasoner that ships for it.

    Attributes:
        model: recipe of the reasoner.
        frontier: the best that is possible on the questions given.
        behaviour: what completions do, by level, and how well; see the functions.
    """

    model: str
    frontier: Callable[[Sequence[str]], Frontier]
    behaviour: Callable[[Sequence[Pair]], dict[str, Any]]


@cache
def merging_law() -> MergingLaw:
    """The measured law of the shipped reasoner of bed M."""
    return MergingLaw.load(REASONERS["tiny_running_total"] / "law.json")


def merging_frontier(questions: Sequence[str]) -> Frontier:
    """The best of the shipped reasoner of bed M on the levels of these questions, weighted as they stand there."""
    law, counts = merging_law(), Counter(len(running_total.totals(question)) - 1 for question in questions)
    levels = [n for n in law.levels if counts[n]]
    return Frontier.of([law.levels[n].points() for n in levels], [counts[n] / len(questions) for n in levels])


def checking_frontier(questions: Sequence[str]) -> Frontier:
    """The best on exactly these questions of bed S, for a policy that sees the level and checks at most k options."""
    by_level: dict[int, list[str]] = {}
    for question in questions:
        by_level.setdefault(len(which_sum.options(question)), []).append(question)
    levels = [
        [
            Point(
                fmean(which_sum.rank(q) <= k for q in own),
                fmean(which_sum.tokens(which_sum.completion(q, k)) for q in own),
                k,
            )
            for k in range(n)
        ]
        for n, own in sorted(by_level.items())
    ]
    return Frontier.of(levels, [len(own) / len(questions) for _, own in sorted(by_level.items())])


def merging_behaviour(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What completions of bed M do: by level, and in all.

    Returns:
        `levels`: by n, `totals` (stated a completion, the answer included), `merged` (share of the totals that merge
        1, 2, ... operations) and `off_grammar` (share of the completions that break it, left out of all else).
        `skill`: by m, `error` (share of the totals that merge m operations and are wrong, of those that all totals
        before are right) and `stated` (their number).
        `law_accuracy`: what the shipped reasoner would reach by the law with the same compositions, 0 where the grammar
        is broken: what lies between it and the accuracy is skill, what lies between it and the reasoner's own is
        composition.
    """
    law = merging_law()
    stated = [(len(running_total.totals(q)) - 1, running_total.parse(q, text)) for q, text in pairs]
    levels = {}
    for n in sorted({n for n, _ in stated}):
        own = [found for m, found in stated if m == n]
        kept = [found for found in own if found is not None]
        levels[str(n)] = {
            "totals": fmean(len(found) for found in kept) if kept else None,
            "merged": _shares(total.merged for found in kept for total in found),
            "off_grammar": 1 - len(kept) / len(own),
        }
    tried: Counter[int] = Counter()
    wrong: Counter[int] = Counter()
    for _, found in stated:
        for total in found or ():
            tried[total.merged] += 1
            if not total.right:
                wrong[total.merged] += 1
                break
    reached = {n: {point.policy: point.accuracy for point in level.points()} for n, level in law.levels.items()}
    expected = [reached[n][tuple(total.merged for total in found)] if found is not None else 0.0 for n, found in stated]
    return {
        "levels": levels,
        "skill": {str(m): {"error": wrong[m] / tried[m], "stated": tried[m]} for m in sorted(tried)},
        "law_accuracy": fmean(expected),
    }


def checking_behaviour(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What completions of bed S do: by level, and in all.

    Returns:
        `levels`: by N, `checks` and `waste` (a completion), `guessed` (share that answered what was not settled),
        `no_check` (share that checked nothing) and `off_grammar` (share that breaks it, left out of all else).
        `skill`: `sound`, the share of the completions with a check in which every sum and verdict is right.
    """
    done = [(len(which_sum.options(q)), which_sum.parse(q, text)) for q, text in pairs]
    levels = {}
    for n in sorted({n for n, _ in done}):
        own = [found for m, found in done if m == n]
        kept = [found for found in own if found is not None]
        means: dict[str, list[Any]] = {
            "checks": [found.checks for found in kept],
            "waste": [found.waste for found in kept],
            "guessed": [found.guessed for found in kept],
            "no_check": [found.checks == 0 for found in kept],
        }
        levels[str(n)] = {name: fmean(values) if values else None for name, values in means.items()} | {
            "off_grammar": 1 - len(kept) / len(own)
        }
    checked = [found.sound for _, found in done if found is not None and found.checks]
    return {"levels": levels, "skill": {"sound": fmean(checked) if checked else None}}


def _shares(values: Iterable[int]) -> dict[str, float]:
    counts = Counter(values)
    return {str(value): counts[value] / counts.total() for value in sorted(counts)}


BEDS: dict[str, Bed] = {
    "running_total": Bed("tiny_running_total", merging_frontier, merging_behaviour),
    "which_sum": Bed("tiny_which_sum", checking_frontier, checking_behaviour),
}
"""By the name that `data=` gives them."""
