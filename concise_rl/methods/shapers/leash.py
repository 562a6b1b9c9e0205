"""LEASH: the price of a token beyond the target is a dual variable that rises while answers are too long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.statistics import mean_where
from concise_rl.options import choose


class Kind(str, Enum):
    """The length that the controller holds to the target: the mean of the step, or its longest."""

    mean = "mean"
    max = "max"


class Outcome(str, Enum):
    """What the penalty is taken from: +1 or -1 by the verdict, or the reward handed in."""

    signed = "signed"
    given = "given"


@dataclass
class Leash(Shaper):
    """Penalises tokens beyond T with a weight lam that the step's own lengths move.

        reward = clip(outcome - lam * max(0, L/T - 1), -1, 1)         outcome = 2 * correct - 1
        then     lam = clip(lam + eta * (mean(L)/T - 1), 0, lam_max)  mean over the step's rows that count

    The clip is what shields wrong answers: they stand at -1 already. `outcome=given` takes the reward handed in, which
    must then be about +1 and -1: under 0 and 1 a long wrong answer is punished. Exactly T tokens are free. The update
    takes the violation as it is, negative ones too, so lam falls while answers are short. A step in which no row
    counts leaves lam. `signed` replaces the reward handed in.

    Source: arXiv 2512.21540, YanhaoLi-Cc/LEASH at bb5aa65. Defaults are those of its 1.5B script; its class has lam0
    0.01, eta 0.02, lam_max 2. It keeps lam in a file beside the checkpoint, which may be missing; here lam is in it.

    Attributes:
        T: target length, tokens.
        lam0: lam before the first step.
        eta: step size of lam.
        lam_max: largest lam.
        kind: `mean` or `max` of the step's lengths moves lam.
        outcome: `signed` or `given`.

    Raises:
        UserError: a field is out of range.
    """

    T: int = 4096
    lam0: float = 0.1
    eta: float = 0.005
    lam_max: float = 1.0
    kind: Kind = Kind.mean
    outcome: Outcome = Outcome.signed

    def __post_init__(self) -> None:
        self.kind = choose("Leash.kind", Kind, self.kind)
        self.outcome = choose("Leash.outcome", Outcome, self.outcome)
        if self.T < 1:
            raise UserError(f"Leash.T={self.T}: a target is 1 token or more")
        for name in ("eta", "lam_max"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"Leash.{name}={getattr(self, name)}: must be 0 or more")
        if not 0 <= self.lam0 <= self.lam_max:
            raise UserError(f"Leash.lam0={self.lam0}: must be in 0..lam_max={self.lam_max}")

    @property
    def replaces(self) -> bool:  # type: ignore[override]
        """With `outcome=signed` the verdict alone counts."""
        return self.outcome is Outcome.signed

    def init(self) -> float:
        """lam."""
        return float(self.lam0)

    def __call__(self, batch: RolloutBatch, value: Tensor, state: float) -> tuple[Out, float]:
        """Score the step with lam as it was, then move lam."""
        ratio_N = batch.lengths.double() / self.T
        outcome_N = 2.0 * batch.correct - 1 if self.outcome is Outcome.signed else value
        shaped_N = (outcome_N - state * (ratio_N - 1).clamp(min=0)).clamp(-1, 1)
        metrics = {"leash/lam": state, "leash/over_frac": mean_where(ratio_N > 1, batch.counts)}
        return Out(torch.where(batch.counts, shaped_N, value), metrics), self._moved(state, ratio_N[batch.counts])

    def _moved(self, lam: float, ratios: Tensor) -> float:
        if not ratios.numel():
            return lam
        ratio = float(ratios.mean() if self.kind is Kind.mean else ratios.max())
        return min(max(lam + self.eta * (ratio - 1), 0.0), float(self.lam_max))
