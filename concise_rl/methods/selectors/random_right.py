"""One right answer of each problem by chance: the control of every selection by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from concise_rl.methods.contracts import Choice, Sample, Selection, Selector
from concise_rl.methods.drawing import seeded


@dataclass
class RandomRight(Selector):
    """One right answer of each problem that has any, drawn by seed and problem; TOPS' control (arXiv 2502.18080).

    Attributes:
        seed: of the draw.
    """

    seed: int = 0

    def select(self, problems: Mapping[str, Sequence[Sample]]) -> Selection:
        """One row a problem."""
        right = {key: [s for s in samples if s.correct] for key, samples in problems.items()}
        return [
            Choice(seeded("random_right", self.seed, key).choice(samples)) for key, samples in right.items() if samples
        ]
