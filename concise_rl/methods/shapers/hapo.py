"""HAPO: is this answer shorter than the shortest right answer that the prompt ever had?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.history import History
from concise_rl.methods.statistics import mean_where
from concise_rl.options import Variant, choose


class Kind(str, Enum):
    """The curve from length to reward."""

    cosine = "cosine"
    linear = "linear"


class Statistic(str, Enum):
    """What a prompt's history keeps of the lengths of its right answers."""

    min = "min"
    mean = "mean"


RELEASED_UNSEEN = 100_000
"""The released code's mark for a prompt without history, which is also an upper limit of its lengths."""

WRONG_FLOOR = -1.0
"""No wrong answer loses more than this, before `weight`; the cosine ends there by itself."""


@dataclass
class Hapo(Shaper):
    """Adds a length reward that compares with the lengths of the prompt's right answers in earlier steps.

    With l the length of a row and h its prompt's history (the shortest, or the mean), both in sampled tokens:

        reward += weight * f(l, h, correct),  f = 0 where h is unknown

        cosine   x = cos(l/h * pi/2) below 2h, else -1
                 correct: max(floor, x)                          wrong: min(0, x)
        linear   over = (l - (1 + tolerance) h) / h
                 correct: 1 - l/h below h, 0 up to (1 + tolerance) h, then max(floor, -over)
                 wrong: 0 up to (1 + tolerance) h, then max(-1, -over)

    So f is in [floor, 1] for right and in [-1, 0] for wrong answers. All rows of a step are scored against the history
    of the steps before; then the lengths of its right, scorable rows enter. A prompt nobody solved stays unknown, and
    a right answer of no tokens is scored but not recorded: nothing is shorter than it.

    Source: arXiv 2505.11225, HCY123902/HAPO at c91ae3b6. `variant=code` repeats two things of the released
    code: a mean is cut to a whole number after every update, and is updated once a completion instead of once a step
    (G times with the same lengths, so early right answers weigh too much); and a prompt is unknown by its value, unless
    0 < h < 100000, so a right answer of no tokens makes its prompt unknown (for good, with `min`). With `history=min`
    the variants agree on all lengths in between. Lengths count EOS, the released code's do not, which shifts l and h
    alike.

    Attributes:
        weight: of f; 1 is the paper's.
        kind: `cosine` or `linear`.
        history: `min` or `mean` of the lengths of right answers.
        floor: lowest f of a right answer, in [-1, 0].
        tolerance: width of the linear kind's band without penalty, as a fraction of h.
        variant: `paper` (exact means, each row once) or `code`.

    Raises:
        UserError: a field is out of range, or weight and floor let a right answer score below a wrong one.
    """

    weight: float = 1.0
    kind: Kind = Kind.cosine
    history: Statistic = Statistic.min
    floor: float = -0.7
    tolerance: float = 0.1
    variant: Variant = Variant.paper

    def __post_init__(self) -> None:
        self.kind = choose("Hapo.kind", Kind, self.kind)
        self.history = choose("Hapo.history", Statistic, self.history)
        self.variant = choose("Hapo.variant", Variant, self.variant)
        if not -1 <= self.floor <= 0:
            raise UserError(f"Hapo.floor={self.floor}: the lowest length reward of a right answer is in -1..0")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise UserError(f"Hapo.tolerance={self.tolerance}: must be 0 or more, 0.1 is the paper's")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"Hapo.weight={self.weight}: must be 0 or more, 1 is the paper's")
        if self.weight * -self.floor >= 1:
            raise UserError(
                f"Hapo.weight={self.weight} with floor={self.floor}: a long right answer would score no better than a "
                f"wrong one; keep weight * -floor below 1"
            )

    def init(self) -> History:
        """No prompt has a history."""
        return History.empty()

    def __call__(self, batch: RolloutBatch, value: Tensor, state: History) -> tuple[Out, History]:
        """Score the step against `state`, then record the step in it."""
        history_P, known_P = self._recall(batch, state)
        length_reward_N = self.weight * self._length_reward(batch, history_P, known_P)
        metrics = {
            "hapo/length_reward_mean": mean_where(length_reward_N, batch.counts),
            "hapo/known_frac": float(known_P.double().mean()),
            "hapo/history_mean": mean_where(history_P, known_P),
        }
        return Out(value + length_reward_N, metrics), self._record(batch, state)

    def _recall(self, batch: RolloutBatch, state: History) -> tuple[Tensor, Tensor]:
        """h (P,), 1 where unknown, and which are known (P,)."""
        values_P, counts_P = state.lookup(batch.prompt_keys)
        if self.variant is Variant.code:
            values_P = np.trunc(values_P)
            known_P = (values_P > 0) & (values_P < RELEASED_UNSEEN)
        else:
            known_P = counts_P > 0
        return torch.from_numpy(np.where(known_P, values_P, 1.0)), torch.from_numpy(known_P)

    def _length_reward(self, batch: RolloutBatch, history_P: Tensor, known_P: Tensor) -> Tensor:
        """f (N,), before `weight`."""
        length_PG = batch.by_group(batch.lengths).double()
        correct_PG = batch.by_group(batch.correct)
        h_P1 = history_P[:, None]
        if self.kind is Kind.cosine:
            x_PG = torch.where(length_PG < 2 * h_P1, torch.cos(length_PG / h_P1 * (math.pi / 2)), -1.0)
            right_PG, wrong_PG = x_PG.clamp(min=self.floor), x_PG.clamp(max=0.0)
        else:
            penalty_PG = -(((length_PG - (1 + self.tolerance) * h_P1) / h_P1).clamp(min=0.0))
            saved_PG = (1 - length_PG / h_P1).clamp(min=0.0)
            right_PG, wrong_PG = saved_PG + penalty_PG.clamp(min=self.floor), penalty_PG.clamp(min=WRONG_FLOOR)
        counts_PG = known_P[:, None] & batch.by_group(batch.counts)
        return torch.where(counts_PG, torch.where(correct_PG, right_PG, wrong_PG), 0.0).reshape(-1)

    def _record(self, batch: RolloutBatch, state: History) -> History:
        if self.variant is Variant.code:
            return self._record_as_released(batch, state)
        rows = (batch.correct & batch.counts & (batch.lengths > 0)).nonzero().flatten().tolist()
        ids = [batch.prompt_keys[row // batch.group_size] for row in rows]
        lengths = batch.lengths[rows].numpy()
        return state.record_min(ids, lengths) if self.history is Statistic.min else state.record_mean(ids, lengths)

    def _record_as_released(self, batch: RolloutBatch, state: History) -> History:
        """One update a completion of the prompt, each with all its right lengths of the step, in whole numbers."""
        lengths_of: dict[str, list[int]] = {}
        completions_of: dict[str, int] = {}
        right_PG = batch.by_group(batch.correct & batch.counts)
        for prompt_key, lengths_G, right_G in zip(
            batch.prompt_keys, batch.by_group(batch.lengths), right_PG, strict=True
        ):
            lengths_of.setdefault(prompt_key, []).extend(lengths_G[right_G].tolist())
            completions_of[prompt_key] = completions_of.get(prompt_key, 0) + batch.group_size
        ids = [prompt_key for prompt_key, lengths in lengths_of.items() if lengths]
        if self.history is Statistic.min:
            return state.record_min(ids, [min(lengths_of[prompt_key]) for prompt_key in ids])
        values, counts = state.lookup(ids)
        means = []
        for k, prompt_key in enumerate(ids):
            lengths, mean, count = lengths_of[prompt_key], int(np.nan_to_num(values[k])), int(counts[k])
            for _ in range(completions_of[prompt_key]):
                share = len(lengths) / (count + len(lengths))
                mean = int(share * (sum(lengths) / len(lengths)) + (1 - share) * mean)
                count += len(lengths)
            means.append(mean)
            counts[k] = count
        return state.assign(ids, means, counts)
