"""O1-Pruner's weights: short and right against what the reference model does on the problem."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from concise_rl.errors import DataError, UserError
from concise_rl.methods.picking import Dropped, PerProblem, Pick
from concise_rl.samples import Sample, Samples, Selection


@dataclass
class O1Pruner(PerProblem):
    """Length-harmonizing fine-tuning (arXiv 2501.12570; StarDewXXX/O1-Pruner), for the loss `weighted`.

    Over the K completions of a problem, sampled from the reference model:

        w = clip((mean L - L) / L + alpha (c - mean c), low, high)

    `rows` of them are drawn, right or wrong, and the weights of all drawn rows are standardised together (population
    deviation; where it is 0 all weights are 0).

    Attributes:
        alpha: weight of being right; 2 for Marco-o1, 5 for QwQ.
        low, high: bounds of w before it is standardised.
        rows: drawn a problem.

    Raises:
        UserError: bounds the wrong way round, a negative alpha, or no row to draw.
        DataError: a completion of no tokens, which has no weight.
    """

    alpha: float = 2.0
    low: float = -2.0
    high: float = 4.0
    rows: int = 2

    takes_wrong = True

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.low >= self.high or self.rows < 1:
            raise UserError(
                f"O1Pruner.alpha={self.alpha}, low={self.low}, high={self.high}, rows={self.rows}: need alpha >= 0, "
                "low < high, rows >= 1"
            )

    def pick(self, samples: Sequence[Sample], rng: random.Random) -> list[Pick] | Dropped:
        """The drawn rows with their weights, not yet standardised."""
        weights = self.weights([s.length for s in samples], [s.correct for s in samples])
        drawn = sorted(rng.sample(range(len(samples)), min(self.rows, len(samples))))
        return [Pick(samples[place], weight=weights[place]) for place in drawn]

    def weights(self, lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
        """w of each completion of a problem."""
        mean_length, accuracy = sum(lengths) / len(lengths), sum(correct) / len(correct)
        raw = [(mean_length - n) / n + self.alpha * (c - accuracy) for n, c in zip(lengths, correct, strict=True)]
        return [min(max(w, self.low), self.high) for w in raw]

    def __call__(self, samples: Samples, seed: int) -> Selection:
        """All problems, their weights standardised."""
        empty = (samples.lengths == 0) & samples.scorable
        if empty.any():
            key = samples.problems[samples.problem[empty.argmax()]]
            raise DataError(
                f"problem {key} has a completion of 0 tokens, which selector=o1_pruner cannot weigh: leave it out"
            )
        selection = super().__call__(samples, seed)
        weights = selection.weights
        if weights is None:
            return selection
        deviation = weights.std()
        return replace(selection, weights=(weights - weights.mean()) / deviation if deviation else weights * 0)
