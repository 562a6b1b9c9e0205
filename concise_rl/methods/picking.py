"""What selectors share: they go problem by problem, and say why a problem gives nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from concise_rl.methods.contracts import Selector
from concise_rl.methods.drawing import seeded
from concise_rl.samples import Sample, Samples, Selection

NO_RIGHT = "no right answer"


class Pick(NamedTuple):
    """One row for supervised tuning; with `rejected` one preference pair."""

    chosen: Sample
    rejected: Sample | None = None
    weight: float | None = None
    start: str = ""


class Dropped(NamedTuple):
    """Nothing of a problem is chosen, and why."""

    reason: str


class PerProblem(Selector):
    """A selector that looks at one problem at a time, and so says `pick` alone."""

    def pick(self, samples: Sequence[Sample], rng: random.Random) -> Sequence[Pick] | Dropped:
        """What is chosen of one problem's completions; never empty. `rng` is the problem's own."""
        raise NotImplementedError

    def __call__(self, samples: Samples, seed: int) -> Selection:
        """All problems."""
        picks: list[Pick] = []
        dropped: dict[str, str] = {}
        for key, rows in samples.by_problem():
            found = self.pick(rows, seeded(seed, key)) if rows else Dropped("no verdict")
            if isinstance(found, Dropped):
                dropped[key] = found.reason
            else:
                picks += found
        return chosen(picks, dropped, pairs=self.pairs)


def chosen(picks: Sequence[Pick], dropped: dict[str, str], *, pairs: bool = False) -> Selection:
    """The selection that these picks are."""
    rejected = [pick.rejected.row for pick in picks if pick.rejected is not None]
    weights = [pick.weight for pick in picks if pick.weight is not None]
    return Selection(
        rows=np.array([pick.chosen.row for pick in picks], dtype=np.int64),
        rejected=np.array(rejected, dtype=np.int64) if pairs else None,
        weights=np.array(weights, dtype=np.float64) if weights else None,
        starts=[pick.start for pick in picks] if any(pick.start for pick in picks) else None,
        dropped=dropped,
    )


def right(samples: Sequence[Sample]) -> list[Sample]:
    """The right ones."""
    return [sample for sample in samples if sample.correct]


def wrong(samples: Sequence[Sample]) -> list[Sample]:
    """The wrong ones."""
    return [sample for sample in samples if not sample.correct]


def shortest(samples: Sequence[Sample]) -> Sample:
    """The first of the shortest."""
    return min(samples, key=lambda sample: sample.length)


def longest(samples: Sequence[Sample]) -> Sample:
    """The first of the longest."""
    return max(samples, key=lambda sample: sample.length)


def check_selection(selector: Selector, samples: Samples, selection: Any) -> Selection:
    """What a selector chose, refused where it names no row, a wrong one, one twice, or pairs what does not belong.

    Raises:
        ValueError: names the class, what came, and what was expected.
    """
    name = type(selector).__name__
    if not isinstance(selection, Selection):
        raise ValueError(f"{name} returned {type(selection).__name__}; a selector returns a Selection")
    if (selection.rejected is not None) is not selector.pairs:
        raise ValueError(f"{name} returned {'rows' if selector.pairs else 'pairs'}, and {name}.pairs={selector.pairs}")
    columns = {"rows": selection.rows, "rejected": selection.rejected, "weights": selection.weights}
    for column, values in {**columns, "starts": selection.starts}.items():
        if values is not None and np.shape(values) != (len(selection),):
            raise ValueError(f"{name} returned {column} of shape {np.shape(values)}; it must be ({len(selection)},)")
    for side in (selection.rows, selection.rejected):
        if side is not None and len(side) and not (side.min() >= 0 and side.max() < len(samples)):
            raise ValueError(f"{name} chose a row outside 0..{len(samples) - 1}")
    if selection.weights is not None and not np.isfinite(selection.weights).all():
        raise ValueError(f"{name} returned a weight that is not finite")
    _check_sides(name, selector, samples, selection)
    return selection


def _check_sides(name: str, selector: Selector, samples: Samples, selection: Selection) -> None:
    rows = selection.rows
    wrong_rows = rows[~(samples.correct & samples.scorable)[rows]]
    if len(wrong_rows) and not selector.takes_wrong:
        key = samples.problems[samples.problem[wrong_rows[0]]]
        raise ValueError(f"{name} chose {len(wrong_rows)} rows that are not right, the first of problem {key}")
    rejected = rows if selection.rejected is None else selection.rejected
    if len(np.unique(np.stack([rows, rejected]), axis=1).T) < len(selection):
        raise ValueError(f"{name} chose a row or a pair twice")
    if (samples.problem[rows] != samples.problem[rejected]).any():
        raise ValueError(f"{name} paired completions of two problems")
    if selector.pairs and (rows == rejected).any():
        raise ValueError(f"{name} paired a completion with itself")
