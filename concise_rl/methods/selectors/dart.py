"""DART-Math: as many right completions of each problem as its difficulty asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Selector
from concise_rl.methods.picking import NO_RIGHT, Pick, chosen, right
from concise_rl.methods.quotas import Quota, quotas
from concise_rl.options import choose
from concise_rl.samples import Sample, Samples, Selection


@dataclass
class Dart(Selector):
    """Difficulty-aware rejection tuning (arXiv 2407.13690; hkust-nlp/dart-math).

    prop2diff: quota = max(1, ceil(most f / max f)), f the problem's fail rate over its first `pilot` completions, the
    maximum over all problems; all f 0: one each. uniform: quota = most. Chosen are the first `quota` right ones of a
    problem; one that has fewer stays short, nothing is repeated. Rates are fractions: a floating ceiling adds a row.

    Sampling goes on for a problem until its right completions are *more* than its quota, as in the released code.

    Attributes:
        kind: `prop2diff` or `uniform`, see `concise_rl.methods.quotas`.
        most: the largest quota; the paper has 50 for prop2diff, 40 for uniform.
        pilot: completions of each problem by which its fail rate is known.

    Raises:
        UserError: unknown kind, or a number below 1.
    """

    kind: Quota = Quota.prop2diff
    most: int = 50
    pilot: int = 8

    def __post_init__(self) -> None:
        self.kind = choose("Dart.kind", Quota, self.kind)
        if self.most < 1 or self.pilot < 1:
            raise UserError(f"Dart.most={self.most}, pilot={self.pilot}: each must be 1 or more")

    def __call__(self, samples: Samples, seed: int) -> Selection:
        """The first right ones of each problem, up to its quota."""
        rows = dict(samples.by_problem())
        quotas = self.quotas(rows)
        picks: list[Pick] = []
        dropped: dict[str, str] = {}
        for key, own in rows.items():
            found = _in_order(right(own))[: quotas[key]]
            picks += map(Pick, found)
            if not found:
                dropped[key] = NO_RIGHT if own else "no verdict"
        return chosen(picks, dropped)

    def quotas(self, rows: Mapping[str, list[Sample]]) -> dict[str, int]:
        """How many right completions each problem is to have."""
        tried = {key: own if self.kind is Quota.uniform else _in_order(own)[: self.pilot] for key, own in rows.items()}
        sampled = {key: max(len(own), 1) for key, own in tried.items()}
        hits = {key: sum(row.correct for row in own) if own else 1 for key, own in tried.items()}
        return quotas(self.kind, self.most, hits, sampled)

    def unfilled(self, samples: Samples) -> set[str]:
        """The problems whose right completions are not more than their quota."""
        rows = dict(samples.by_problem())
        quotas = self.quotas(rows)
        return {key for key, own in rows.items() if len(right(own)) <= quotas[key]}


def _in_order(rows: list[Sample]) -> list[Sample]:
    """As they were sampled, whatever stage and edit they are of."""
    return sorted(rows, key=lambda sample: sample.number)
