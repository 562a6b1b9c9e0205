"""DART-Math: hard problems get as many right answers as easy ones, or more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Choice, Sample, Selection, Selector
from concise_rl.methods.quotas import Quota, quotas
from concise_rl.options import choose


@dataclass
class DartProp2Diff(Selector):
    """The first right answers of each problem, up to its quota (`concise_rl.methods.quotas`); none is repeated.

    Source: arXiv 2407.13690, hkust-nlp/dart-math at 219b324. A problem with fewer right answers than its quota stays
    short. `concise-rl sample until=...` samples on where that is so.

    Attributes:
        kind: `prop2diff` or `uniform`.
        k: quota of the hardest problem, or of each; 50 and 40 in the paper.

    Raises:
        UserError: an unknown kind, or k below 1.
    """

    kind: Quota = Quota.prop2diff
    k: int = 50

    def __post_init__(self) -> None:
        self.kind = choose("DartProp2Diff.kind", Quota, self.kind)
        if self.k < 1:
            raise UserError(f"DartProp2Diff.k={self.k}: must be 1 or more, 50 is the paper's")

    def select(self, problems: Mapping[str, Sequence[Sample]]) -> Selection:
        """Up to its quota of each problem."""
        wanted = self.quotas(problems)
        right = {key: [s for s in samples if s.correct] for key, samples in problems.items()}
        return [Choice(s) for key, samples in right.items() for s in samples[: wanted[key]]]

    def quotas(self, problems: Mapping[str, Sequence[Sample]]) -> dict[str, int]:
        """Right answers that each problem is to have."""
        right = {key: sum(s.correct for s in samples) for key, samples in problems.items()}
        return quotas(self.kind, self.k, right, {key: len(samples) for key, samples in problems.items()})
