"""TOPS: how long a thought should be, learned from answers at three efforts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Choice, Preference, Sample, Selection, Selector
from concise_rl.methods.selectors.long2short import shortest_right
from concise_rl.options import choose


class TopsKind(str, Enum):
    """The three selections of the paper, in its order."""

    seed = "seed"
    main = "main"
    dpo = "dpo"


@dataclass
class Tops(Selector):
    """Thinking-optimal scaling, arXiv 2502.18080; no code is published.

        seed   all three answers of a problem, one an effort: if all are right and both gaps in length exceed `gap`
        main   the shortest right answer over the efforts
        dpo    shortest right over the longest wrong, and over the shortest wrong if that is shorter than the right one

    `seed` teaches a model to think at three efforts, `main` is what it is tuned on after it answered at each, `dpo`
    (8 samples) refines. Under `seed` a problem with another number of answers than `efforts` is dropped.

    Attributes:
        kind: `seed`, `main` or `dpo`.
        gap: tokens that neighbours by length must differ by more than; 300 in the paper.
        efforts: answers of a problem under `seed`.

    Raises:
        UserError: an unknown kind, a negative gap, or fewer than two efforts.
    """

    kind: TopsKind = TopsKind.main
    gap: int = 300
    efforts: int = 3

    def __post_init__(self) -> None:
        self.kind = choose("Tops.kind", TopsKind, self.kind)
        if self.gap < 0:
            raise UserError(f"Tops.gap={self.gap}: must be 0 tokens or more, 300 is the paper's")
        if self.efforts < 2:
            raise UserError(f"Tops.efforts={self.efforts}: needs 2 or more")

    def select(self, problems: Mapping[str, Sequence[Sample]]) -> Selection:
        """Rows, or pairs under `dpo`."""
        if self.kind is TopsKind.seed:
            return [Choice(s) for samples in problems.values() if self.told_apart(samples) for s in samples]
        if self.kind is TopsKind.main:
            return [Choice(best) for samples in problems.values() if (best := shortest_right(samples))]
        return [pair for samples in problems.values() for pair in self.pairs(samples)]

    def told_apart(self, samples: Sequence[Sample]) -> bool:
        """Whether all efforts answered right, at lengths that differ."""
        lengths = sorted(s.length for s in samples)
        gaps = [later - sooner for sooner, later in pairwise(lengths)]
        return len(samples) == self.efforts and all(s.correct for s in samples) and min(gaps) > self.gap

    def pairs(self, samples: Sequence[Sample]) -> list[Preference]:
        """The preferences of one problem; a wrong answer stands in one of them."""
        chosen = shortest_right(samples)
        wrong = [s for s in samples if not s.correct]
        if chosen is None or not wrong:
            return []
        longest, shortest = max(wrong, key=lambda s: s.length), min(wrong, key=lambda s: s.length)
        rejected = [longest] + [shortest] * (shortest is not longest and shortest.length < chosen.length)
        return [Preference(chosen, other) for other in rejected]
