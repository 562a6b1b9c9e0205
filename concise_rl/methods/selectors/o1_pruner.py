"""O1-Pruner: every answer teaches, by how much shorter and righter it is than the problem's others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Choice, Sample, Selection, Selector
from concise_rl.methods.drawing import seeded


@dataclass
class O1Pruner(Selector):
    """Some samples of each problem with a weight, which may be negative.

    Source: arXiv 2501.12570; StarDewXXX/O1-Pruner. Over all samples of a problem (16 of Marco-o1, 12 of QwQ)

        w_i = clip((mean L - L_i) / L_i + alpha (c_i - mean c), -2, 4)

    of which `rows` are drawn, by seed and problem; then the weights are standardised over all rows that were drawn,
    with the population deviation (0 where that is 0). `concise-rl tune recipe=weighted` takes them: a ratio to the
    frozen start, by length, clipped, times the weight.

    Attributes:
        alpha: what being right is worth; 2 for Marco-o1, 5 for QwQ.
        rows: of a problem; 2 in the paper.
        seed: of the draw.

    Raises:
        UserError: a field out of its range; a sample of no tokens.
    """

    alpha: float = 2.0
    rows: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise UserError(f"O1Pruner.alpha={self.alpha}: must be 0 or more, 2 is the paper's for Marco-o1")
        if self.rows < 1:
            raise UserError(f"O1Pruner.rows={self.rows}: must be 1 or more, 2 is the paper's")

    def select(self, problems: Mapping[str, Sequence[Sample]]) -> Selection:
        """`rows` samples of each problem, weighted."""
        drawn = []
        for key, samples in problems.items():
            weights = self.weights(samples)
            places = seeded("o1_pruner", self.seed, key).sample(range(len(samples)), min(self.rows, len(samples)))
            drawn += [(samples[place], weights[place]) for place in sorted(places)]
        values = standardised([weight for _, weight in drawn])
        return [Choice(sample, value) for (sample, _), value in zip(drawn, values, strict=True)]

    def weights(self, samples: Sequence[Sample]) -> list[float]:
        """w of each sample of one problem, before they are standardised."""
        for sample in samples:
            if sample.length == 0:
                raise UserError(f"problem {sample.problem} has a sample of 0 tokens: o1_pruner divides by the length")
        length = statistics.fmean(s.length for s in samples)
        accuracy = statistics.fmean(s.correct for s in samples)
        return [
            min(max((length - s.length) / s.length + self.alpha * (s.correct - accuracy), -2.0), 4.0) for s in samples
        ]


def standardised(values: Sequence[float]) -> list[float]:
    """(x - mean) / population deviation; 0 where all are equal."""
    spread = statistics.pstdev(values) if values else 0.0
    mean = statistics.fmean(values) if values else 0.0
    return [(value - mean) / spread if spread else 0.0 for value in values]
